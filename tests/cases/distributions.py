"""Distributions: small enough to be enumerated, if they are discrete."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_genmodels import distributions, nets
from tests.cases.case import LABELS, Case, Cases, features
from tests.cases.nets import (
    char_rnn,
    code_hierarchy,
    gated_net,
    made,
    multiscale,
    ngram,
    pixelrnn,
    plus_plus_net,
    snail_net,
    wavenet,
)


class Upwards(nets.AutoregressiveNet):
    """A caller's own: a level's mixture starts from the level before it."""

    num_mixtures = 2

    def __init__(self, length: int, context_size: int) -> None:
        super().__init__((length,), 3, context_features=2, context_shape=(context_size,))
        self.parameters_of = nn.Linear(3, 6)

    def evaluate(self, x: Tensor, features: Tensor | None) -> Tensor:
        assert features is not None
        before = nn.functional.pad(x[:, :-1], (1, 0))[..., None]
        seen = torch.cat([before, features[:, None].expand(-1, x.shape[-1], -1)], -1)
        parameters: Tensor = self.parameters_of(seen)
        return parameters


class Shrunk(nn.Module):
    """A denoiser: the data's estimate is their noised value, less and less of it."""

    def __init__(self, *shape: int, learned: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))
        self.share = nn.Parameter(torch.full(shape, 0.3)) if learned else None
        self.rank = len(shape)

    def forward(self, z: Tensor, level: Tensor, context: Tensor | None) -> distributions.Denoised:
        kept = torch.sigmoid(-level).reshape(*level.shape, *[1] * self.rank)
        x = self.weight * kept.to(z) * z
        share = None if self.share is None else (self.share + 0 * z).sigmoid()
        return distributions.Denoised(x if context is None else x + context, share)


def whitening(*shape: int) -> Tensor:
    """Lower-triangular matrices with a positive diagonal."""
    below = torch.linspace(-1, 1, torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)
    return below.tril(-1) + torch.diag_embed(below.diagonal(dim1=-2, dim2=-1).exp())


LEVELS = torch.tensor([-5.0, -1.0, 0.0, 4.0], dtype=torch.float64)


DISTRIBUTIONS: Cases = {
    "AutoregressiveDistribution": lambda: Case(
        distributions.AutoregressiveDistribution(Upwards(4, 2), features(2))
    ),
    "CharRNN": lambda: Case(distributions.CharRNN(char_rnn(5))),
    "CharRNN/lstm": lambda: Case(
        distributions.CharRNN(char_rnn(4, cell="lstm", num_classes=3), LABELS)
    ),
    "CharRNN/sequence": lambda: Case(
        distributions.CharRNN(char_rnn(3, context_shape=(2, 3)), features(2, 3))
    ),
    "ClosedUniform": lambda: Case(distributions.ClosedUniform(features(3) - 2, features(3))),
    "Mixture": lambda: Case(
        distributions.Mixture(
            features(3), dist.Normal(features(3), features(3).exp(), validate_args=False)
        )
    ),
    "Mixture/levels": lambda: Case(
        distributions.Mixture(
            features(3), dist.Categorical(logits=features(3, 4), validate_args=False)
        )
    ),
    "AR1Normal": lambda: Case(
        distributions.AR1Normal(torch.zeros((), dtype=torch.float64), 6, 0.8, num_steps=3)
    ),
    "WhitenedNormal": lambda: Case(distributions.WhitenedNormal(features(3), whitening(2, 3, 3))),
    "WhitenedNormal/maps": lambda: Case(
        distributions.WhitenedNormal(features(4), whitening(4, 4), event_shape=(1, 2, 2))
    ),
    "DiagonalNormal": lambda: Case(distributions.DiagonalNormal(features(3), features(3) - 1)),
    "DiagonalNormal/maps": lambda: Case(
        distributions.DiagonalNormal(features(1, 2, 3), scale=features(1, 2, 3).exp(), event_dim=3)
    ),
    "DiagonalNormal/numbers": lambda: Case(
        distributions.DiagonalNormal(features(3), features(3) - 1, event_dim=0)
    ),
    "DiscretizedLogistic": lambda: Case(
        distributions.DiscretizedLogistic(features(3), features(3) - 1, 256)
    ),
    "DiscretizedLogistic/narrow": lambda: Case(
        distributions.DiscretizedLogistic(features(3), features(3) - 8, 17)
    ),
    "DiscretizedLogisticMixture": lambda: Case(
        distributions.DiscretizedLogisticMixture(
            torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.0, 0.5]], dtype=torch.float64),
            torch.tensor([[-0.5, 0.3, 1.2], [0.0, -0.9, 0.4]], dtype=torch.float64),
            torch.tensor([-7.0, -1.0, -2.5], dtype=torch.float64),
            17,
        )
    ),
    "ForwardDiffusion": lambda: Case(
        distributions.ForwardDiffusion(features(3), LEVELS, event_dim=1)
    ),
    "ForwardDiffusion/image": lambda: Case(
        distributions.ForwardDiffusion(features(1, 2, 2), LEVELS[:2], event_dim=3)
    ),
    "ForwardDiffusion/one-level": lambda: Case(
        distributions.ForwardDiffusion(features(2), LEVELS[:1], event_dim=1)
    ),
    "GatedPixelCNN": lambda: Case(distributions.GatedPixelCNN(gated_net(1, 2, 3))),
    "GatedPixelCNN/colours": lambda: Case(distributions.GatedPixelCNN(gated_net(3, 1, 2))),
    "GatedPixelCNN/one-pixel-wide": lambda: Case(
        distributions.GatedPixelCNN(gated_net(2, 3, 1, num_layers=2))
    ),
    "GatedPixelCNN/labels": lambda: Case(
        distributions.GatedPixelCNN(gated_net(1, 2, 2, num_classes=3), LABELS)
    ),
    "GatedPixelCNN/map": lambda: Case(
        distributions.GatedPixelCNN(gated_net(1, 2, 2, context_shape=(2, 2, 2)), features(2, 2, 2))
    ),
    "HiddenMarkov": lambda: Case(
        distributions.HiddenMarkov(
            features(3),
            features(3, 3)[1],
            dist.Normal(features(3)[1], features(3).exp(), validate_args=False),
            duration=4,
        )
    ),
    "HiddenMarkov/levels": lambda: Case(
        distributions.HiddenMarkov(
            features(2)[1],
            features(2, 2),
            dist.Categorical(logits=features(2, 3)[1] - 1, validate_args=False),
            duration=4,
        )
    ),
    "HiddenMarkov/left-to-right": lambda: Case(
        distributions.HiddenMarkov(
            torch.tensor([0.0, -torch.inf, -torch.inf], dtype=torch.float64),
            torch.ones(3, 3, dtype=torch.float64).triu().log() + features(3, 3)[1],
            dist.Categorical(logits=features(3, 3)[1], validate_args=False),
            duration=5,
        )
    ),
    "HiddenMarkov/time-varying": lambda: Case(
        distributions.HiddenMarkov(
            features(2),
            features(2, 2, 2),
            dist.Bernoulli(logits=features(3, 2, 2), validate_args=False).to_event(1),
            duration=3,
            time_varying_transitions=True,
            time_varying_emissions=True,
        )
    ),
    "HiddenMarkov/vectors": lambda: Case(
        distributions.HiddenMarkov(
            features(2)[0],
            features(2, 2)[0],
            dist.Normal(features(2, 2)[1], 0.5, validate_args=False).to_event(1),
            duration=3,
        )
    ),
    "HierarchicalVQPrior/labels": lambda: Case(
        distributions.HierarchicalVQPrior(code_hierarchy((1, 1), (2, 2), num_classes=3), LABELS)
    ),
    "HierarchicalVQPrior/map": lambda: Case(
        distributions.HierarchicalVQPrior(
            code_hierarchy((1, 1), (1, 2), context_shape=(2, 1, 2)), features(2, 1, 2)
        )
    ),
    "HierarchicalVQPrior/unequal-codes": lambda: Case(
        distributions.HierarchicalVQPrior(code_hierarchy((1, 1), (1, 2), (2, 2), codes=2))
    ),
    "HierarchicalVQPrior/parts": lambda: Case(
        distributions.HierarchicalVQPrior(code_hierarchy((2, 1, 1), (2, 1, 2), codes=2))
    ),
    "MADE": lambda: Case(distributions.MADE(made(4))),
    "MADE/binary": lambda: Case(distributions.MADE(made(1, 2, 3, num_levels=2, order="random"))),
    "MADE/direct": lambda: Case(
        distributions.MADE(made(4, hidden=(4,), direct=True, num_classes=3), LABELS)
    ),
    "MADE/masks": lambda: Case(
        distributions.MADE(
            made(4, order=[2, 0, 3, 1], num_masks=3, one_hot=False, context_shape=(2,)),
            features(2),
        )
    ),
    "MultiScalePixelRNN": lambda: Case(
        distributions.MultiScalePixelRNN(multiscale(1, 3, 2, num_levels=2))
    ),
    "MultiScalePixelRNN/colours": lambda: Case(
        distributions.MultiScalePixelRNN(multiscale(3, 1, 2))
    ),
    "MultiScalePixelRNN/map": lambda: Case(
        distributions.MultiScalePixelRNN(
            multiscale(1, 2, 2, context_shape=(2, 2, 2)), features(2, 2, 2)
        )
    ),
    "NGram": lambda: Case(distributions.NGram(ngram(5))),
    "NGram/sequence": lambda: Case(
        distributions.NGram(ngram(4, direct=True, context_shape=(2, 6)), features(2, 6))
    ),
    "NegativeBinomial": lambda: Case(
        distributions.NegativeBinomial(features(3).exp(), features(3).exp())
    ),
    "NegativeBinomial/shared": lambda: Case(
        distributions.NegativeBinomial(features(3).exp(), features(3)[0].exp() + 1)
    ),
    "ObservedPart": lambda: Case(
        distributions.ObservedPart(
            dist.Normal(features(3), features(3).exp(), validate_args=False).to_event(1)
        )
    ),
    "ObservedPart/levels": lambda: Case(
        distributions.ObservedPart(
            distributions.DiscretizedLogistic(
                features(1, 1, 2), features(1, 1, 2), 3, validate_args=False
            ).to_event(3)
        )
    ),
    "PixelCNN": lambda: Case(
        distributions.PixelCNN(nets.PixelCNNNet((1, 2, 3), 3, hidden_channels=4, num_blocks=1))
    ),
    "PixelCNN/codes": lambda: Case(
        distributions.PixelCNN(
            nets.PixelCNNNet((2, 1, 2), 3, hidden_channels=6, num_blocks=1, embedding_size=2)
        )
    ),
    "PixelCNN/colours": lambda: Case(
        distributions.PixelCNN(nets.PixelCNNNet((3, 1, 3), 2, hidden_channels=6, num_blocks=1))
    ),
    "PixelCNN/labels": lambda: Case(
        distributions.PixelCNN(
            nets.PixelCNNNet((1, 2, 2), 3, hidden_channels=4, num_blocks=1, num_classes=3), LABELS
        )
    ),
    "PixelCNNPlusPlus": lambda: Case(distributions.PixelCNNPlusPlus(plus_plus_net(1, 2, 3))),
    "PixelCNNPlusPlus/colours": lambda: Case(
        distributions.PixelCNNPlusPlus(plus_plus_net(3, 1, 2, num_mixtures=3))
    ),
    "PixelCNNPlusPlus/labels": lambda: Case(
        distributions.PixelCNNPlusPlus(plus_plus_net(1, 2, 2, num_scales=2, num_classes=3), LABELS)
    ),
    "PixelCNNPlusPlus/map": lambda: Case(
        distributions.PixelCNNPlusPlus(
            plus_plus_net(2, 2, 1, context_shape=(2, 2, 1)), features(2, 2, 1)
        )
    ),
    "PixelCNNPlusPlus/one-component": lambda: Case(
        distributions.PixelCNNPlusPlus(plus_plus_net(3, 2, 1, num_mixtures=1))
    ),
    "PixelCNN/map": lambda: Case(
        distributions.PixelCNN(
            nets.PixelCNNNet(
                (1, 2, 2), 3, hidden_channels=4, num_blocks=1, context_shape=(2, 2, 2)
            ),
            features(2, 2, 2),
        )
    ),
    "PixelRNN": lambda: Case(distributions.PixelRNN(pixelrnn(1, 2, 3))),
    "PixelRNN/colours": lambda: Case(distributions.PixelRNN(pixelrnn(3, 1, 2))),
    "PixelRNN/labels": lambda: Case(
        distributions.PixelRNN(pixelrnn(1, 2, 2, residual=False, num_classes=3), LABELS)
    ),
    "PixelRNN/map": lambda: Case(
        distributions.PixelRNN(pixelrnn(1, 2, 2, context_shape=(2, 2, 2)), features(2, 2, 2))
    ),
    "PixelRNN/row": lambda: Case(
        distributions.PixelRNN(pixelrnn(1, 3, 2, num_levels=2, layer="row", num_layers=2))
    ),
    "PixelRNN/row-colours": lambda: Case(
        distributions.PixelRNN(pixelrnn(3, 2, 1, layer="row", context_shape=(2,)), features(2))
    ),
    "PixelSNAIL": lambda: Case(distributions.PixelSNAIL(snail_net(1, 2, 3, num_blocks=2))),
    "PixelSNAIL/codes": lambda: Case(
        distributions.PixelSNAIL(
            snail_net(1, 2, 2, embedding_size=3, context_shape=(2,)), features(2)
        )
    ),
    "PixelSNAIL/colours": lambda: Case(distributions.PixelSNAIL(snail_net(3, 1, 2))),
    "PixelSNAIL/one-pixel-wide": lambda: Case(distributions.PixelSNAIL(snail_net(2, 3, 1))),
    "PixelSNAIL/labels": lambda: Case(
        distributions.PixelSNAIL(snail_net(1, 2, 2, num_classes=3), LABELS)
    ),
    "PixelSNAIL/map": lambda: Case(
        distributions.PixelSNAIL(snail_net(1, 2, 2, context_shape=(2, 2, 2)), features(2, 2, 2))
    ),
    "Rescaled": lambda: Case(
        distributions.Rescaled(
            distributions.DiagonalNormal(features(3), features(3) - 1, validate_args=False),
            torch.tensor([0.0, 5.0, -300.0], dtype=torch.float64),
            torch.tensor([1.0, 0.5, 20.0], dtype=torch.float64),
            dtype=torch.float64,
        )
    ),
    "ReverseDiffusion": lambda: Case(distributions.ReverseDiffusion(Shrunk(3), LEVELS, (3,), (2,))),
    "ReverseDiffusion/context": lambda: Case(
        distributions.ReverseDiffusion(
            Shrunk(3), LEVELS, (3,), (2,), context=features(3), variance="forward"
        )
    ),
    "ReverseDiffusion/learned": lambda: Case(
        distributions.ReverseDiffusion(
            Shrunk(1, 1, 2, learned=True), LEVELS[1:], (1, 1, 2), variance="learned"
        )
    ),
    "StandardNormal": lambda: Case(
        distributions.StandardNormal(torch.zeros((), dtype=torch.float64), 3, (2,))
    ),
    "UniformDequantization": lambda: Case(
        distributions.UniformDequantization(torch.arange(3.0).double())
    ),
    "UniformLevels": lambda: Case(distributions.UniformLevels((1, 3), 4)),
    "VQPrior": lambda: Case(distributions.VQPrior(snail_net(2, 3, embedding_size=2))),
    "VQPrior/parts": lambda: Case(distributions.VQPrior(gated_net(2, 1, 2, embedding_size=2))),
    "VQPrior/labels": lambda: Case(
        distributions.VQPrior(snail_net(2, 2, embedding_size=2, num_classes=3), LABELS)
    ),
    "VQPrior/map": lambda: Case(
        distributions.VQPrior(
            snail_net(2, 2, embedding_size=2, context_shape=(2, 2, 2)), features(2, 2, 2)
        )
    ),
    "VQPrior/sequence": lambda: Case(distributions.VQPrior(wavenet(5))),
    "WaveNet": lambda: Case(distributions.WaveNet(wavenet(6))),
    "WaveNet/image": lambda: Case(
        distributions.WaveNet(wavenet(2, 1, 2, kernel_size=3, num_classes=3), LABELS)
    ),
    "WaveNet/mixture": lambda: Case(
        distributions.WaveNet(wavenet(5, num_mixtures=2, num_classes=3), LABELS)
    ),
    "WaveNet/sequence": lambda: Case(
        distributions.WaveNet(wavenet(4, context_shape=(2, 3)), features(2, 3))
    ),
    "ZeroInflatedNegativeBinomial": lambda: Case(
        distributions.ZeroInflatedNegativeBinomial(
            features(3).exp(), features(3).exp(), features(3) - 1
        )
    ),
}

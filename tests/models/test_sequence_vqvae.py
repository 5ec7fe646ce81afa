"""VQ-VAE over sequences: shapes, the WaveNet's view of the codes, the voice of a context."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import compression, models, nets, testing
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.data import with_lengths
from pyro_genmodels.models.vqvae.learned_priors import code_model
from tests.cases import sequence_vqvae


def sequences(*batch: int, length: int = 7) -> Tensor:
    return torch.randint(3, (*batch, length))


def moved(**options) -> models.SequenceVQVAE:
    """A model whose codebook is initialised and whose parameters are random."""
    torch.manual_seed(0)
    model = sequence_vqvae(**options).double()
    x = sequences(20, length=model.event_shape[0])
    context = None if model.num_classes is None else torch.zeros(20, dtype=torch.long)
    models.ELBOLoss(model)(x, context)
    return testing.randomize_parameters(model).eval()


def test_the_likelihood_is_the_wavenet_s_given_the_codes() -> None:
    model, x = moved(), sequences(4)
    codes = model.encode_codes(x)
    assert codes.shape == (4, 2)
    features = model.decoder(model._vectors([codes])[0])[..., :7]
    net = model.likelihood.net
    expected = torch.log_softmax(net(x, features), -1).gather(-1, x[..., None]).sum((-1, -2))
    given = model.log_weights(x)[0]
    torch.testing.assert_close(given, expected - 2 * math.log(5), atol=1e-10, rtol=0)


@pytest.mark.parametrize("length", [1, 4, 7, 16])
@pytest.mark.parametrize("reduction", [1, 2, 8])
def test_any_length_and_reduction(length: int, reduction: int) -> None:
    model = sequence_vqvae((length,), reduction=reduction)
    x = sequences(3, length=length)
    loss = models.ELBOLoss(model)
    loss(x).backward()
    assert loss.unreached_parameters() == []
    assert model.encode_codes(x).shape == (3, math.ceil(length / reduction))
    assert model.reconstruct(x).shape == model.sample(3).shape == x.shape


def test_a_code_changes_its_own_steps() -> None:
    """Each step's features are those of the code there, and of its neighbours."""
    model = moved(event_shape=(16,), num_blocks=0)
    codes = torch.zeros(4, dtype=torch.long)
    other = codes.clone()
    other[0] = 1
    before, after = (model.decoder(model._vectors([each])[0]) for each in (codes, other))
    changed = (before != after).any(0)
    assert torch.equal(changed, torch.arange(16) < 8)


def test_another_voice_says_the_same() -> None:
    """What is coded does not depend on the context, what is decoded does."""
    model, x = moved(num_classes=3), sequences(4)
    one, two = torch.tensor(0), torch.tensor(2)
    codes = model.encode_codes(x, one)
    assert torch.equal(model.encode_codes(x, two), codes)
    assert not torch.allclose(model.log_weights(x, one), model.log_weights(x, two))
    assert model.decode_codes(codes, two).shape == x.shape


def test_codes_are_decoded_to_draws() -> None:
    model = moved()
    codes = model.encode_codes(sequences(1)).expand(2000, 2)
    torch.manual_seed(0)
    drawn = model.decode_codes(codes)
    law = model.decode(model._vectors([codes[0]])[0])
    share = (drawn[:, 0, None] == torch.arange(3)).double().mean(0)
    first = torch.tensor([[k, *[0] * 6] for k in range(3)])
    logits = law.net(first, model.decoder(model._vectors([codes[0]])[0])[..., :7])[0, 0]
    assert float((share - logits.softmax(-1)).abs().max()) < 0.05


@pytest.mark.parametrize("options", [{}, {"num_classes": 3}, {"context_shape": (2, 5)}])
def test_the_elbo_improves_by_exactly_what_a_wavenet_over_the_codes_gained(options) -> None:
    model, x = moved_with(options), sequences(6)
    context = None
    if model.num_classes is not None:
        context = torch.arange(6) % 3
    elif model.context_shape is not None:
        context = torch.randn(6, 2, 5, dtype=torch.float64)
    before = model.log_weights(x, context)[0]
    (prior,) = models.learned_priors(model, hidden_channels=4)
    prior = testing.randomize_parameters(prior.double()).eval()
    assert isinstance(prior.net, nets.WaveNetNet)
    assert prior.net.receptive_field >= 2
    codes = model.encode_codes(x, context)
    gained = prior((), context).log_prob(codes) + 2 * math.log(5)
    model.set_code_priors([prior])
    after = model.log_weights(x, context)[0]
    assert gained.abs().max() > 0.01
    torch.testing.assert_close(after - before, gained, atol=1e-10, rtol=0)
    coder = code_model([prior])
    torch.testing.assert_close(coder.log_weights(codes, context)[0], gained - 2 * math.log(5))
    drawn = model.sample(2, context, temperature=0.7)
    assert drawn.shape == (2, *(() if context is None else (6,)), 7)


def moved_with(options) -> models.SequenceVQVAE:
    if "context_shape" not in options:
        return moved(**options)
    model = sequence_vqvae(**options).double()
    models.ELBOLoss(model)(sequences(20), torch.randn(20, *options["context_shape"]).double())
    return model.eval()


def test_codes_are_compressed_and_come_back() -> None:
    pytest.importorskip("constriction")
    model, x = moved(), sequences(40)
    (prior,) = models.learned_priors(model, hidden_channels=4)
    model.set_code_priors([prior.double().eval()])
    codes = model.encode_codes(x)
    written = compression.compress_codes(model, codes)
    assert torch.equal(compression.decompress_codes(model, written), codes)


def test_a_block_of_the_prior_spans_the_codes() -> None:
    with torch.device("meta"):
        model = models.preset("SequenceVQVAE", "vctk", event_shape=(64 * 300,))
        (prior,) = models.learned_priors(model, num_blocks=1)  # type: ignore[arg-type]
    assert prior.code_shape == (300,)
    assert prior.net.receptive_field == 512


def test_a_configuration_rebuilds_it() -> None:
    model, x = sequence_vqvae().eval(), sequences(4)
    rebuilt = build(configuration(model))
    rebuilt.load_state_dict(model.state_dict())
    assert torch.equal(rebuilt.eval().log_weights(x), model.log_weights(x))


def test_an_own_likelihood_takes_the_wavenet_s_place() -> None:
    net = nets.CharRNNNet((7,), 3, hidden_features=4, context_shape=(2, 7))
    likelihood = models.AutoregressiveLikelihood(net)
    model = sequence_vqvae(likelihood=likelihood)
    models.ELBOLoss(model)(sequences(4)).backward()
    assert model.sample(2).shape == (2, 7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sequence_vqvae((1, 4, 4)), r"`event_shape` must be positive sizes \(D,\)"),
        (lambda: sequence_vqvae(reduction=3), "`reduction` must be a power of two; got 3"),
        (
            lambda: sequence_vqvae(likelihood=models.CategoricalLikelihood((7,), 3)),
            r"`likelihood` must take features \(C, 7\); got \(21,\)",
        ),
        (lambda: sequence_vqvae().encode_codes(torch.zeros(2, 6)), "`x` must have trailing shape"),
        (lambda: sequence_vqvae().decode_codes(torch.zeros(2, 3)), "`codes` must have trailing"),
    ],
)
def test_errors_name_argument_rule_and_value(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def with_missing(length: int = 4, **options: Any) -> models.SequenceVQVAE:
    """A model of three levels and two codes of three values each, moved from its start."""
    wavenet = models.WaveNetSizes(4, skip_channels=4, num_blocks=1, layers_per_block=2)
    network = models.SequenceVQVAENetwork(
        2, hidden_channels=4, residual_channels=3, num_blocks=1, missing=True
    )
    codebook = models.Codebook(3, dim=2)
    sizes = {"network": network, "codebook": codebook, "wavenet": wavenet, **options}
    model = models.SequenceVQVAE((length,), num_levels=3, **sizes)
    return testing.randomize_parameters(model.double(), 0.5).eval()


def test_the_bound_of_a_sequence_that_ends_early_is_that_of_its_part() -> None:
    """By enumeration over codes and over what its end may be."""
    model = with_missing()
    x = torch.cartesian_prod(*[torch.arange(3.0)] * 4).double()
    codes = torch.cartesian_prod(*[torch.arange(3)] * 2)
    with torch.no_grad():
        inputs = model._decoder_input(model._vectors([codes]), None)
        table = model.decode(inputs[:, None]).log_prob(x[None]) - 2 * math.log(3)
        for length in range(5):
            lengths = torch.full((len(x),), length)
            _, group = with_lengths(x, lengths).nan_to_num(-1).unique(dim=0, return_inverse=True)
            joint = torch.zeros(len(codes), 3**length).double()
            joint.index_add_(1, group, table.exp())
            shorter = with_lengths(x, lengths)
            chosen = model.encode_codes(shorter) @ torch.tensor([3, 1])
            bound = model.log_weights(shorter)[0]
            torch.testing.assert_close(bound, joint[chosen, group].log(), rtol=1e-9, atol=1e-9)
            assert (bound <= joint.sum(0)[group].log() + 1e-9).all()


def test_what_is_missing_trains_and_is_reconstructed() -> None:
    model = with_missing(7).float()
    x = with_lengths(torch.randint(3, (6, 7)), torch.tensor([0, 1, 3, 5, 6, 7]))
    loss = models.ELBOLoss(model.train())(x)
    loss.backward()
    assert loss.isfinite()
    for part in (model.encoder, model.decoder, model.likelihood):
        slopes = [p.grad for p in part.parameters() if p.grad is not None]
        assert any(bool((slope != 0).any()) for slope in slopes)
        assert all(bool(slope.isfinite().all()) for slope in slopes)
    model.eval()
    assert model.encode_codes(x).shape == (6, 4)
    assert not model.reconstruct(x).isnan().any()
    assert not model.sample(3).isnan().any()
    assert build(configuration(model)).missing
    with pytest.raises(ValueError, match="`x` must miss the last elements only"):
        model.encode_codes(torch.tensor([[torch.nan, 0, 0, 0, 0, 0, 0]]))


def test_without_missing_the_encoder_is_what_it_was() -> None:
    keys = {name: p.shape for name, p in sequence_vqvae().state_dict().items()}
    assert keys["encoder.strided.0.weight"][1] == 1
    assert not sequence_vqvae().missing
    with pytest.raises(ValueError, match="`x` must hold integers"):
        sequence_vqvae().encode_codes(torch.full((1, 7), torch.nan))
    net = nets.WaveNetNet((4,), 3, context_shape=(4, 4))
    with pytest.raises(ValueError, match="`likelihood` must be an AutoregressiveLikelihood"):
        with_missing(likelihood=models.AutoregressiveLikelihood(net))
    own = models.AutoregressiveLikelihood(net, missing=True)
    assert with_missing(likelihood=own).missing

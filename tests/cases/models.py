"""Models: discrete ones small enough to be enumerated."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions.transforms import (
    affine_autoregressive,
    conditional_affine_autoregressive,
    planar,
)

from pyro_genmodels import models, nets, transforms
from tests.cases.case import LABELS, Case, Cases, features
from tests.cases.nets import gated_net, made, pixelrnn, plus_plus_net, snail_net, wavenet
from tests.cases.transforms import conditional_real_nvp, real_nvp
from tests.grouped import grouped


def sequence_vqvae(event_shape: tuple[int, ...] = (7,), **options: Any) -> models.SequenceVQVAE:
    """A short one: two codes for four steps each."""
    sizes = {"num_levels": 3, "num_codes": 5, "dim": 3, "reduction": 4, "hidden_channels": 4}
    wavenet = models.WaveNetSizes(4, skip_channels=4, num_blocks=1, layers_per_block=2)
    small = {"residual_channels": 3, "num_blocks": 1, "wavenet": wavenet}
    return models.SequenceVQVAE(
        event_shape, **grouped(models.SequenceVQVAE, {**sizes, **small, **options})
    )


def learned_priors(model: models.VectorQuantizedModel) -> Any:
    """The model with small learned priors."""
    small = {"hidden_channels": 4, "num_blocks": 1, "num_layers": 1, "num_heads": 1}
    model.set_code_priors(models.learned_priors(model, embedding_size=3, dropout=0.0, **small))
    return model


def dequantizer(*shape: int) -> transforms.ConditionalRealNVP:
    """A small conditional flow of values within the levels."""
    return conditional_real_nvp(*shape, num_scales=1, context_shape=shape).part


def nvae(*shape: int, **options: Any) -> models.NVAE:
    """A small NVAE."""
    sizes = {"num_groups": (1, 1), "latent_channels": 1, "channels": 4, "cells_per_block": 1}
    return models.NVAE(
        shape, **grouped(models.NVAE, {"num_blocks": 0, "num_cells": 1, **sizes, **options})
    )


def semi_supervised(**options: Any) -> models.SemiSupervisedVAE:
    """A small semi-supervised VAE of two classes."""
    sizes = {"num_levels": 2, "latent_dim": 2, "num_classes": 2}
    network = models.VAENetwork(hidden=(6,))
    return models.SemiSupervisedVAE(
        models.VAE((2,), network=network, **sizes), hidden=(5,), **options
    )


def diffusion(*shape: int, num_levels: int | None = 3, **options: Any) -> models.DiffusionModel:
    """A small diffusion model of a few steps.

    With levels its least noise is large, so that chains at random parameters have weights.
    """
    sizes: dict[str, Any] = {"channels": 4, "num_blocks": 1, "attention": (), "hidden": (6,)}
    network = models.DenoisingNetwork(options.pop("net", "auto"), **sizes)
    if num_levels is not None:
        options = {"schedule": nets.LinearLogSNR(-1.0, 2.0), **options}
    options = {"num_steps": 3, "network": network, **options}
    return models.DiffusionModel(shape, num_levels=num_levels, **options)


def mixture(num_labels: int = 3, **options: Any) -> models.MixtureModel:
    """A small mixture of autoregressive models of three binary elements."""
    parts = made(3, num_levels=2, num_classes=num_labels)
    return models.MixtureModel(models.AutoregressiveModel(parts), **options)


MODELS: Cases = {
    "CategoricalModel": lambda: Case(models.CategoricalModel((1, 2, 2), 3)),
    "CategoricalModel/binary-labels": lambda: Case(
        models.CategoricalModel((4,), 2, num_classes=3), context=LABELS
    ),
    "CategoricalModel/labels": lambda: Case(
        models.CategoricalModel((3,), 4, num_classes=3), context=LABELS
    ),
    "CategoricalModel/missing": lambda: Case(
        models.CategoricalModel((1, 2, 2), 3, num_classes=3, missing=True), context=LABELS
    ),
    "AutoregressiveModel": lambda: Case(
        models.AutoregressiveModel(
            nets.PixelCNNNet((1, 2, 2), 3, hidden_channels=4, num_blocks=1, num_classes=3)
        ),
        context=LABELS,
    ),
    "AutoregressiveModel/gated": lambda: Case(models.AutoregressiveModel(gated_net(1, 2, 2))),
    "AutoregressiveModel/attention": lambda: Case(models.AutoregressiveModel(snail_net(1, 2, 2))),
    "AutoregressiveModel/made": lambda: Case(models.AutoregressiveModel(made(4, num_masks=2))),
    "AutoregressiveModel/multi-scale": lambda: Case(
        models.AutoregressiveModel(
            nets.MultiScaleNet(
                made(1, 2, 1, num_levels=2),
                nets.PixelCNNNet((1, 3, 2), 2, num_blocks=0, context_shape=(6, 3, 2)),
            ),
        )
    ),
    "AutoregressiveModel/row-lstm": lambda: Case(
        models.AutoregressiveModel(pixelrnn(1, 2, 2, layer="row"))
    ),
    "AutoregressiveModel/sequence": lambda: Case(
        models.AutoregressiveModel(wavenet(4, context_shape=(2, 4))),
        context=features(2, 4),
    ),
    "AutoregressiveModel/plus-plus": lambda: Case(
        models.AutoregressiveModel(plus_plus_net(1, 2, 2))
    ),
    "DeltaVAE": lambda: Case(
        models.DeltaVAE(
            (3,),
            num_levels=2,
            latent_dim=4,
            commitment=models.RateCommitment(num_steps=4),
            network=models.VAENetwork(hidden=(6,)),
            delta=0.5,
        )
    ),
    "DeltaVAE/variance": lambda: Case(
        models.DeltaVAE(
            (1, 2, 2),
            num_levels=2,
            latent_dim=2,
            delta=0.05,
            commitment="variance",
            network=models.VAENetwork(hidden=(6,)),
            num_classes=3,
        ),
        context=LABELS,
    ),
    "DiffusionModel": lambda: Case(diffusion(2, num_steps=8)),
    "DiffusionModel/bits": lambda: Case(
        diffusion(
            2, num_levels=5, encoding="bits", denoising="data", schedule=nets.Cosine(0.0, 2.0)
        )
    ),
    "DiffusionModel/continuous": lambda: Case(diffusion(3, num_levels=None)),
    "DiffusionModel/continuous-image": lambda: Case(
        diffusion(2, 3, 1, num_levels=None, schedule=nets.LinearLogSNR(-4.0, 4.0))
    ),
    "DiffusionModel/geometric": lambda: Case(
        diffusion(
            2,
            num_levels=None,
            schedule="geometric",
            objective=models.DiffusionObjective("flow_matching", importance_sampling=False),
        )
    ),
    "DiffusionModel/image": lambda: Case(diffusion(2, 1, 3, num_levels=2)),
    "DiffusionModel/labels": lambda: Case(
        diffusion(2, num_classes=3, objective=models.DiffusionObjective(context_dropout=0.2)),
        context=LABELS,
    ),
    "DiffusionModel/learned-variance": lambda: Case(
        diffusion(
            2,
            num_levels=None,
            denoising=models.Denoising("noise", variance="learned"),
            objective="hybrid",
            schedule="linear_beta",
        )
    ),
    "DiffusionModel/learned-vectors": lambda: Case(
        diffusion(2, encoding=models.LevelEncoding("learned", size=2))
    ),
    "DiffusionModel/limit": lambda: Case(
        diffusion(
            2,
            denoising=models.Denoising("velocity", variance="forward", fourier_features=2),
            objective=models.DiffusionObjective(continuous=True),
        )
    ),
    "DiffusionModel/map": lambda: Case(
        diffusion(
            1,
            2,
            2,
            objective="simple",
            schedule=nets.LinearLogSNR(-1.0, 2.0, learnable=False),
            context_shape=(2, 2, 2),
        ),
        context=features(2, 2, 2),
    ),
    "DiffusionModel/one-element": lambda: Case(diffusion(1, num_levels=2, num_steps=1)),
    "DiffusionModel/self-conditioning": lambda: Case(
        diffusion(2, encoding=models.LevelEncoding("bits", self_conditioning=True))
    ),
    "DiffusionModel/sequence": lambda: Case(
        diffusion(4, net="sequence", context_shape=(2,)), context=features(2)
    ),
    "FactorAnalysis": lambda: Case(models.FactorAnalysis((3,), latent_dim=2)),
    "FactorAnalysis/image": lambda: Case(
        models.FactorAnalysis((1, 2, 2), latent_dim=2, noise="shared")
    ),
    "FactorAnalysis/missing": lambda: Case(models.FactorAnalysis((3,), latent_dim=2, missing=True)),
    "FlowModel": lambda: Case(
        models.FlowModel(
            (1, 2, 2), real_nvp(1, 2, 2, num_scales=1, logit_margin=0.0).part, num_levels=3
        )
    ),
    "FlowModel/margin": lambda: Case(
        models.FlowModel((3,), real_nvp(3, logit_margin=0.05).part, num_levels=3)
    ),
    "FlowModel/continuous": lambda: Case(models.FlowModel((3,), real_nvp(3).part)),
    "FlowModel/labels": lambda: Case(
        models.FlowModel(
            (3,),
            conditional_real_nvp(3, num_classes=3, logit_margin=0.0).part,
            num_levels=4,
            num_classes=3,
        ),
        context=LABELS,
    ),
    "FlowModel/one-element": lambda: Case(
        models.FlowModel((1,), real_nvp(1, logit_margin=0.0).part, num_levels=3)
    ),
    "FlowModel/variational": lambda: Case(
        models.FlowModel(
            (3,), real_nvp(3, logit_margin=0.0).part, num_levels=3, dequantization="variational"
        )
    ),
    "FlowModel/variational-labels": lambda: Case(
        models.FlowModel(
            (1, 2, 2),
            conditional_real_nvp(1, 2, 2, num_scales=1, num_classes=3, logit_margin=0.0).part,
            num_levels=3,
            num_classes=3,
            dequantization=dequantizer(1, 2, 2),
        ),
        context=LABELS,
    ),
    "MixtureModel": lambda: Case(mixture()),
    "MixtureModel/chunks": lambda: Case(mixture(chunk_size=2)),
    "MixtureModel/classes": lambda: Case(mixture(6, num_groups=3), context=LABELS),
    "MixtureModel/continuous": lambda: Case(
        models.MixtureModel(
            models.FlowModel((3,), conditional_real_nvp(3, num_classes=2).part, num_classes=2)
        )
    ),
    "MixtureModel/dequantized": lambda: Case(
        models.MixtureModel(
            models.FlowModel(
                (3,),
                conditional_real_nvp(3, num_classes=2, logit_margin=0.0).part,
                num_levels=3,
                num_classes=2,
            )
        )
    ),
    "MixtureModel/dirichlet": lambda: Case(mixture(weights="dirichlet")),
    "MixtureModel/given": lambda: Case(mixture(weights=[0.2, 0.8, 0.0])),
    "MixtureModel/labels": lambda: Case(mixture(observed_labels=True), context=LABELS),
    "MixtureModel/nested": lambda: Case(models.MixtureModel(mixture(4, num_groups=2))),
    "MixtureModel/some-labels": lambda: Case(
        mixture(observed_labels=True), context=torch.tensor([-1, 2])
    ),
    "GaussianModel": lambda: Case(models.GaussianModel((3,))),
    "GaussianModel/diagonal-image": lambda: Case(
        models.GaussianModel((1, 2, 2), covariance="diagonal")
    ),
    "GaussianModel/diagonal-missing": lambda: Case(
        models.GaussianModel((3,), covariance="diagonal", num_classes=3, missing=True),
        context=LABELS,
    ),
    "GaussianModel/image-missing": lambda: Case(
        models.GaussianModel((2, 2, 1), num_classes=3, missing=True), context=LABELS
    ),
    "GaussianModel/labels": lambda: Case(models.GaussianModel((3,), num_classes=3), context=LABELS),
    "GaussianModel/levels": lambda: Case(
        models.GaussianModel((3,), num_levels=3, num_classes=3), context=LABELS
    ),
    "GaussianModel/low-rank": lambda: Case(
        models.GaussianModel((1, 2, 2), covariance="low_rank", rank=2, num_classes=3),
        context=LABELS,
    ),
    "GaussianModel/low-rank-missing": lambda: Case(
        models.GaussianModel((4,), covariance="low_rank", rank=2, num_classes=3, missing=True),
        context=LABELS,
    ),
    "GaussianModel/one-element": lambda: Case(models.GaussianModel((1,))),
    "GaussianModel/spherical": lambda: Case(
        models.GaussianModel((2, 1, 2), covariance="spherical", num_classes=3), context=LABELS
    ),
    "GaussianModel/tied": lambda: Case(
        models.GaussianModel((3,), covariance="tied", num_classes=3), context=LABELS
    ),
    "GaussianModel/tied-missing": lambda: Case(
        models.GaussianModel((3,), covariance="tied", num_classes=3, missing=True),
        context=LABELS,
    ),
    "BetaVAE": lambda: Case(
        models.BetaVAE(
            (1, 2, 2),
            num_levels=2,
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            objective=models.KLObjective(beta=4.0),
        )
    ),
    "BetaVAE/capacity": lambda: Case(
        models.BetaVAE(
            (3,),
            num_levels=2,
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            objective=models.KLObjective(beta=5.0, capacity=1.0),
        )
    ),
    "BetaVAE/rate": lambda: Case(
        models.BetaVAE(
            (4,),
            num_levels=2,
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            objective=models.KLObjective(rate=0.5, warmup_steps=5),
            num_classes=3,
        ),
        context=LABELS,
    ),
    "SemiSupervisedVAE": lambda: Case(semi_supervised()),
    "SemiSupervisedVAE/learned-prior": lambda: Case(semi_supervised(label_prior="learned")),
    "SemiSupervisedVAE/given-prior": lambda: Case(semi_supervised(label_prior=[0.8, 0.2])),
    "SemiSupervisedVAE/missing": lambda: Case(
        models.SemiSupervisedVAE(
            models.VAE(
                (2,),
                num_levels=2,
                latent_dim=1,
                network=models.VAENetwork(hidden=(6,)),
                num_classes=2,
                missing=True,
            ),
            hidden=(5,),
        )
    ),
    "VAE": lambda: Case(
        models.VAE((1, 2, 2), num_levels=3, latent_dim=2, network=models.VAENetwork(hidden=(6,)))
    ),
    "VAE/binary-labels": lambda: Case(
        models.VAE(
            (4,), num_levels=2, latent_dim=2, network=models.VAENetwork(hidden=(6,)), num_classes=3
        ),
        context=LABELS,
    ),
    "VAE/conv": lambda: Case(
        models.VAE(
            (1, 2, 2), num_levels=2, latent_dim=2, network=models.VAENetwork("conv", hidden=(4,))
        )
    ),
    "VAE/categorical": lambda: Case(
        models.VAE(
            (3,),
            num_levels=3,
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            likelihood="categorical",
        )
    ),
    "VAE/counts": lambda: Case(
        models.VAE(
            (3,),
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            likelihood=models.ZeroInflatedNegativeBinomialLikelihood((3,), size_factors=True),
            context_shape=(2,),
        ),
        context=features(2).exp(),
    ),
    "VAE/columns": lambda: Case(
        models.VAE(
            (4,),
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            likelihood=models.Columns(["count", "gaussian", 3, "gaussian"]),
        )
    ),
    "VAE/coupled-posterior": lambda: Case(
        models.VAE(
            (3,),
            num_levels=2,
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            posterior=models.GaussianPosterior(
                transforms=[
                    transforms.affine_coupling(2, hidden=(5,), activation="tanh"),
                    transforms.conditional_affine_coupling(
                        2,
                        2,
                        mask=transforms.HalfMask(inverted=True),
                        hidden=(5,),
                        activation="tanh",
                    ),
                ],
                features=2,
            ),
        )
    ),
    "VAE/autoregressive": lambda: Case(
        models.VAE(
            (1, 2, 2),
            num_levels=3,
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            likelihood=models.AutoregressiveLikelihood(
                nets.PixelCNNNet(
                    (1, 2, 2), 3, hidden_channels=4, num_blocks=1, context_shape=(2, 2, 2)
                )
            ),
        )
    ),
    "VAE/flow-prior": lambda: Case(
        models.VAE(
            (3,),
            num_levels=2,
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            prior=models.FlowPrior(transforms.affine_coupling(2, hidden=(5,), activation="tanh")),
        )
    ),
    "VAE/mixture-prior": lambda: Case(
        models.VAE(
            (3,),
            num_levels=2,
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            prior=models.MixturePrior(2, num_components=3),
        )
    ),
    "VAE/model-prior": lambda: Case(
        models.VAE(
            (3,),
            num_levels=2,
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            prior=models.ModelPrior(
                models.MixtureModel(
                    models.FlowModel(
                        (2,), conditional_real_nvp(2, num_classes=3).part, num_classes=3
                    )
                )
            ),
        )
    ),
    "VAE/vamp-prior": lambda: Case(
        models.VAE(
            (4,),
            num_levels=2,
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            num_classes=3,
            prior=models.VampPrior((4,), num_components=3),
        ),
        context=LABELS,
    ),
    "VAE/free-bits": lambda: Case(
        models.VAE(
            (3,),
            num_levels=2,
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            objective=models.KLObjective(free_bits=0.1),
        )
    ),
    "VAE/full": lambda: Case(
        models.VAE(
            (3,),
            num_levels=3,
            latent_dim=3,
            network=models.VAENetwork(hidden=(6,)),
            posterior="full",
        )
    ),
    "VAE/low-rank": lambda: Case(
        models.VAE(
            (3,),
            latent_dim=3,
            network=models.VAENetwork(hidden=(6,)),
            posterior=models.GaussianPosterior(
                "low_rank", rank=2, transforms=affine_autoregressive(3, [6])
            ),
            num_classes=3,
        ),
        context=LABELS,
    ),
    "VAE/iaf": lambda: Case(
        models.VAE(
            (1, 2, 2),
            num_levels=2,
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            posterior=models.GaussianPosterior(
                transforms=[
                    conditional_affine_autoregressive(2, 3, hidden_dims=[6]),
                    affine_autoregressive(2, [6]),
                ],
                features=3,
            ),
            num_classes=3,
        ),
        context=LABELS,
    ),
    "VAE/planar": lambda: Case(
        models.VAE(
            (3,),
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            posterior=models.GaussianPosterior(transforms=[planar(2), planar(2)]),
        )
    ),
    "VAE/continuous": lambda: Case(
        models.VAE((3,), latent_dim=2, network=models.VAENetwork(hidden=(6,)))
    ),
    "VAE/missing": lambda: Case(
        models.VAE((3,), latent_dim=2, network=models.VAENetwork(hidden=(6,)), missing=True)
    ),
    "VAE/missing-image": lambda: Case(
        models.VAE(
            (1, 2, 2),
            num_levels=3,
            latent_dim=2,
            network=models.VAENetwork("conv", hidden=(4,)),
            missing=True,
        )
    ),
    "VAE/missing-labels": lambda: Case(
        models.VAE(
            (3,),
            num_levels=3,
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            likelihood="categorical",
            prior=models.VampPrior((3,), num_components=3),
            num_classes=3,
            missing=True,
        ),
        context=LABELS,
    ),
    "HiddenMarkovModel": lambda: Case(
        models.HiddenMarkovModel(
            models.AutoregressiveModel(made(2, num_levels=2, num_classes=3)),
            duration=3,
            chunk_size=2,
        )
    ),
    "HiddenMarkovModel/one-number": lambda: Case(
        models.HiddenMarkovModel(
            models.CategoricalModel((1,), 3, num_classes=3),
            duration=4,
            topology="left_to_right",
            missing=True,
        )
    ),
    "HiddenMarkovModel/gaussian": lambda: Case(
        models.hidden_markov((3, 2), 2, covariance="diagonal", missing=True)
    ),
    "HiddenMarkovModel/images": lambda: Case(
        models.HiddenMarkovModel(
            models.AutoregressiveModel(
                nets.PixelCNNNet((1, 2, 2), 2, hidden_channels=4, num_blocks=1, num_classes=2)
            ),
            duration=2,
            topology=[[True, False], [True, True]],
            initial="uniform",
        )
    ),
    "HiddenMarkovModel/flow": lambda: Case(
        models.HiddenMarkovModel(
            models.FlowModel((2,), conditional_real_nvp(2, num_classes=3).part, num_classes=3),
            duration=4,
            topology="banded",
        )
    ),
    "NVAE": lambda: Case(nvae(1, 2, 2, num_levels=2, checkpointing=True)),
    "NVAE/flows": lambda: Case(
        nvae(
            *(2, 1, 1),
            num_levels=3,
            num_groups=(2,),
            num_cells=0,
            num_flows=1,
            num_classes=3,
            likelihood=models.LogisticMixtureLikelihood((2, 1, 1), 3, num_mixtures=2),
        ),
        context=LABELS,
    ),
    "SequenceVQVAE": lambda: Case(sequence_vqvae((15,), num_classes=3), context=LABELS),
    "SequenceVQVAE/parts": lambda: Case(
        sequence_vqvae(
            (16,),
            context_shape=(2,),
            quantizer=nets.ProductQuantizer(
                [nets.VectorQuantizer(2, 5), nets.VectorQuantizer(1, 5)]
            ),
        ),
        context=features(2),
    ),
    "VQVAE": lambda: Case(
        models.VQVAE(
            (1, 5, 6),
            num_levels=3,
            codebook=models.Codebook(5, dim=3),
            network=models.VQVAENetwork(hidden_channels=6),
        )
    ),
    "VQVAE/labels": lambda: Case(
        models.VQVAE(
            (1, 4, 4),
            num_levels=4,
            codebook=models.Codebook(5, dim=3),
            network=models.VQVAENetwork(hidden_channels=6),
            num_classes=3,
            quantizer=nets.VectorQuantizer(3, 5, learning="gradient", distance="cosine"),
        ),
        context=LABELS,
    ),
    "VQVAE/learned-prior": lambda: Case(
        learned_priors(
            models.VQVAE(
                (1, 4, 4),
                num_levels=3,
                codebook=models.Codebook(5, dim=3),
                network=models.VQVAENetwork(reduction=2, hidden_channels=4),
                num_classes=3,
            )
        ),
        context=LABELS,
    ),
    "VQVAE/patches": lambda: Case(
        models.VQVAE(
            (2, 5, 6),
            num_levels=3,
            codebook=models.Codebook(5, dim=3),
            network=models.VQVAENetwork("patch", reduction=3, hidden_channels=4),
            num_classes=3,
        ),
        context=LABELS,
    ),
    "VQVAE2": lambda: Case(
        models.VQVAE2(
            (2, 5, 6),
            codebook=models.Codebook(5, dim=3),
            network=models.VQVAE2Network(hidden_channels=6),
        )
    ),
}


# One more of each family that takes features for a context, for laws of contexts alone.
FEATURE_MODELS: Cases = {
    "BetaVAE": lambda: Case(
        models.BetaVAE(
            (3,),
            latent_dim=2,
            network=models.VAENetwork(hidden=(6,)),
            objective=models.KLObjective(capacity=1.0),
            context_shape=(2,),
        ),
        context=features(2),
    ),
    "DeltaVAE": lambda: Case(
        models.DeltaVAE(
            (3,),
            latent_dim=4,
            commitment=models.RateCommitment(num_steps=4),
            network=models.VAENetwork(hidden=(6,)),
            delta=0.5,
            context_shape=(2,),
        ),
        context=features(2),
    ),
    "DiffusionModel": lambda: Case(
        diffusion(
            3,
            num_levels=None,
            context_shape=(2,),
            objective=models.DiffusionObjective(context_dropout=0.3),
        ),
        context=features(2),
    ),
    "DiffusionModel/image": lambda: Case(
        diffusion(1, 3, 2, denoising="velocity", context_shape=(2,)), context=features(2)
    ),
    "FlowModel": lambda: Case(
        models.FlowModel(
            (1, 2, 2),
            conditional_real_nvp(
                1, 2, 2, num_scales=1, context_shape=(2, 2, 2), logit_margin=0.0
            ).part,
            num_levels=3,
            context_shape=(2, 2, 2),
            dequantization="variational",
        ),
        context=features(2, 2, 2),
    ),
    "FlowModel/continuous": lambda: Case(
        models.FlowModel(
            (3,), conditional_real_nvp(3, context_shape=(2,)).part, context_shape=(2,)
        ),
        context=features(2),
    ),
    "FlowModel/pyro": lambda: Case(
        models.FlowModel(
            (3,), conditional_affine_autoregressive(3, 2, hidden_dims=[6]), context_shape=(2,)
        ),
        context=features(2),
    ),
    "MixtureModel": lambda: Case(mixture(context_shape=(2,)), context=features(2)),
    "NVAE": lambda: Case(
        nvae(1, 2, 2, num_levels=2, context_shape=(2, 2, 2)), context=features(2, 2, 2)
    ),
    "VAE": lambda: Case(
        models.VAE(
            (1, 4, 4),
            num_levels=3,
            latent_dim=2,
            network=models.VAENetwork("conv", hidden=(4,)),
            context_shape=(2, 4, 4),
            prior=models.VampPrior((1, 4, 4), num_components=3),
        ),
        context=features(2, 4, 4),
    ),
    "VQVAE": lambda: Case(
        learned_priors(
            models.VQVAE(
                (1, 4, 4),
                num_levels=3,
                codebook=models.Codebook(5, dim=3),
                network=models.VQVAENetwork(reduction=2, hidden_channels=4),
                context_shape=(2, 4, 4),
            )
        ),
        context=features(2, 4, 4),
    ),
    "VQVAE2": lambda: Case(
        learned_priors(
            models.VQVAE2(
                (1, 8, 8),
                codebook=models.Codebook(5, dim=3),
                network=models.VQVAE2Network(hidden_channels=6),
                context_shape=(2,),
            )
        ),
        context=features(2),
    ),
}

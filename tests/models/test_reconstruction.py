"""Reconstructions without draws: posterior means all the way, or a refusal that says why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.transforms import affine_autoregressive
from torch import Tensor

from pyro_genmodels import models, testing
from pyro_genmodels.models.base.plates import central_value
from tests import cases
from tests.cases import Case

pytestmark = pytest.mark.usefixtures("double")
WITH_LATENTS = {name: make for name, make in cases.MODELS.items() if make().part.has_latents}
WITHOUT_A_MEAN = {"VAE/autoregressive", "SequenceVQVAE", "SequenceVQVAE/parts"}
# Nor has a mixture of such components.
WITHOUT_A_MEAN |= {
    name for name in WITH_LATENTS if name.startswith("MixtureModel") and "dequantized" not in name
}


def prepared(make: Callable[[], Case]) -> tuple[Any, Tensor, Tensor | None]:
    torch.manual_seed(0)
    case = make()
    model = testing.randomize_parameters(case.part.double(), 0.2).eval()
    shape = (3, *model.event_shape)
    levels = model.num_levels
    x = torch.randn(shape) if levels is None else torch.randint(levels, shape).double()
    if model.column_kinds is not None:
        whole = torch.tensor([kind != "gaussian" for kind in model.column_kinds])
        x = torch.where(whole, torch.randint(2, shape).double(), x)
    return (
        model,
        x,
        None if case.context is None else case.context[:1].expand(3, *case.context[0].shape),
    )


@pytest.mark.parametrize("name", WITH_LATENTS)
def test_nothing_is_drawn(name: str) -> None:
    model, x, context = prepared(WITH_LATENTS[name])
    if name in WITHOUT_A_MEAN:
        with pytest.raises(ValueError, match="`deterministic` must be False, the likelihood"):
            model.reconstruct(x, context, deterministic=True)
        return
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(model.reconstruct(x, context, deterministic=True))
    assert torch.equal(*found)
    assert found[0].shape == x.shape
    assert found[0].isfinite().all()
    # A posterior without noise, as of codes, and a flow's bijection leave nothing to the draw.
    drawn = model.reconstruct(x, context)
    settled = isinstance(model, models.VectorQuantizedModel) or model.is_dequantized
    assert torch.equal(drawn, found[0]) == settled


VAES = [
    name
    for name in WITH_LATENTS
    if isinstance(WITH_LATENTS[name]().part, models.VAE) and name not in WITHOUT_A_MEAN
]


@pytest.mark.parametrize("name", VAES)
def test_it_decodes_the_posterior_mean(name: str) -> None:
    """With transforms, what they make of the Gaussian's mean."""
    model, x, context = prepared(WITH_LATENTS[name])
    posterior = model.encode(x, context)
    centre = getattr(posterior, "base_dist", posterior).mean
    for transform in getattr(posterior, "transforms", []):
        centre = transform(centre)
    expected = model.decode(centre, context).mean
    torch.testing.assert_close(model.reconstruct(x, context, deterministic=True), expected)


def test_in_the_units_of_the_data() -> None:
    model, x, _ = prepared(cases.MODELS["VAE/continuous"])
    data = 7 * (torch.cat([x] * 4) + 3)
    found = model.standardize(data).reconstruct(data, deterministic=True)
    expected = model.decode(model.encode(data).mean).mean
    torch.testing.assert_close(found, expected)
    assert abs(found.mean() - 21) < 7 * 3


def test_the_label_is_the_most_probable_one() -> None:
    model, x, _ = prepared(cases.MODELS["SemiSupervisedVAE"])
    label = model.classify(x).probs.argmax(-1)
    expected = model.conditional.reconstruct(x, label, deterministic=True)
    assert torch.equal(model.reconstruct(x, deterministic=True), expected)


@pytest.mark.parametrize("name", ["NVAE", "NVAE/flows"])
@pytest.mark.parametrize("sample", [False, True])
def test_nvae_encodes_from_the_top(name: str, sample: bool) -> None:
    """What it decodes is the reconstruction, to the bit of the same draws."""
    model, x, context = prepared(cases.MODELS[name])
    torch.manual_seed(1)
    latents = model.encode(x, context, sample=sample)
    assert [tuple(z.shape) for z in latents] == [(3, *s) for s in model.latent_shapes]
    torch.manual_seed(1)
    again = model.reconstruct(x, context, deterministic=not sample)
    torch.testing.assert_close(model.decode(latents, context).mean, again, rtol=0, atol=1e-12)


def test_nvae_latents_have_gradients_and_any_batch_shape() -> None:
    model, x, _ = prepared(cases.MODELS["NVAE"])
    latents = model.encode(torch.stack([x, x]))
    assert latents[0].shape[:2] == (2, 3)
    sum(z.square().sum() for z in latents).backward()
    assert all(p.grad is not None for p in model.hierarchy.encoder.parameters())
    with pytest.raises(ValueError, match="`x` must have trailing shape"):
        model.encode(x[..., :1])


def test_values_without_a_draw() -> None:
    gaussian = dist.Normal(torch.tensor([1.0, 2.0]), 1.0).to_event(1)
    assert torch.equal(central_value(gaussian), gaussian.mean)
    flow = affine_autoregressive(2)
    pushed = dist.TransformedDistribution(gaussian, [flow])
    assert torch.equal(central_value(pushed), flow(gaussian.mean))
    assert int(central_value(dist.Categorical(torch.tensor([0.2, 0.7, 0.1])))) == 1
    with pytest.raises(ValueError, match=r"`deterministic` must be False.*got True and VonMises3D"):
        central_value(dist.VonMises3D(torch.ones(3)))


def test_no_latents_remains_an_error() -> None:
    model, x, context = prepared(cases.MODELS["AutoregressiveModel"])
    with pytest.raises(ValueError, match="have latent variables to reconstruct from"):
        model.reconstruct(x, context, deterministic=True)

"""Each network of a whole flow is evaluated once for a density, by count of its calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_genmodels import models, nets, testing, transforms
from tests.transforms.flows import flow_distribution

IMAGE = (1, 4, 4)
NETWORKS = (nets.MLP, nets.ResNet, nets.ConvNet, nets.GlowNet, nets.RealNVPNet)


def glow(**options: Any) -> dict[str, Any]:
    return {"event_shape": IMAGE, "num_scales": 2, "num_steps": 2, "width": 4} | options


def real_nvp(**options: Any) -> dict[str, Any]:
    return {"event_shape": IMAGE, "num_couplings": 1, "width": 4} | options


def nice(**options: Any) -> dict[str, Any]:
    return {"event_shape": IMAGE, "width": 4, "num_layers": 1} | options


# With the number of networks that each has: couplings, and priors of factored-out halves.
FLOWS: dict[str, tuple[Callable[[], Any], int]] = {
    "NICE": (lambda: transforms.NICE(**nice()), 4),
    "RealNVP/vector": (lambda: transforms.RealNVP(4, num_couplings=5, width=4), 5),
    "RealNVP": (lambda: transforms.RealNVP(**real_nvp()), 4),
    "RealNVP/batch-norm": (lambda: transforms.RealNVP(**real_nvp(batch_norm=True)), 4),
    "Glow/vector": (lambda: transforms.Glow(4, num_steps=3, width=4), 3),
    "Glow/affine": (lambda: transforms.Glow(**glow()), 5),
    "Glow/additive": (lambda: transforms.Glow(**glow(coupling="additive")), 5),
    "Glow/spline": (lambda: transforms.Glow(**glow(coupling="spline")), 5),
    "Glow/no-prior": (lambda: transforms.Glow(**glow(learned_prior=False)), 4),
    "Glow/checkpoint": (lambda: transforms.Glow(**glow(checkpoint=True)), 5),
}
CONTEXTS: dict[str, tuple[dict[str, Any], Tensor]] = {
    "labels": ({"num_classes": 3}, torch.tensor([0, 2, 1])),
    "vector": ({"context_shape": (2,)}, torch.randn(3, 2)),
    "map": ({"context_shape": (1, 4, 4)}, torch.randn(3, 1, 4, 4)),
}
TWINS: dict[str, tuple[Callable[..., Any], int]] = {
    "NICE": (lambda **o: transforms.ConditionalNICE(**nice(**o)), 4),
    "RealNVP": (lambda **o: transforms.ConditionalRealNVP(**real_nvp(**o)), 4),
    "RealNVP/batch-norm": (
        lambda **o: transforms.ConditionalRealNVP(**real_nvp(batch_norm=True, **o)),
        4,
    ),
    "Glow": (lambda **o: transforms.ConditionalGlow(**glow(**o)), 5),
    "Glow/prior": (lambda **o: transforms.ConditionalGlow(**glow(condition="prior", **o)), 5),
}


def counter(module: nn.Module) -> dict[nn.Module, int]:
    counts = {m: 0 for m in module.modules() if isinstance(m, NETWORKS)}

    def count(network: nn.Module, *_: object) -> None:
        counts[network] += 1

    for network in counts:
        network.register_forward_pre_hook(count)
    return counts


def calls(counts: dict[nn.Module, int]) -> list[int]:
    found = list(counts.values())
    counts.update(dict.fromkeys(counts, 0))
    return found


def check_counts(module: nn.Module, flow: Any, shape: tuple[int, ...], networks: int) -> None:
    with torch.no_grad():
        flow_distribution(flow, shape).log_prob(torch.randn(3, *shape))  # first values
    counts, once = counter(module), [1] * networks
    for grad in (True, False):
        for training in (True, False):
            module.train(training)
            with torch.set_grad_enabled(grad):
                flow_distribution(flow, shape).log_prob(torch.randn(3, *shape))
            assert calls(counts) == once
    distribution = flow_distribution(flow, shape)
    sample = distribution.rsample(() if distribution.batch_shape else (3,))
    assert calls(counts) == once
    distribution.log_prob(sample)
    assert calls(counts) == [0] * networks
    distribution.log_prob(sample.detach().clone())
    assert calls(counts) == once


@pytest.mark.parametrize("name", FLOWS)
def test_plain(name: str) -> None:
    make, networks = FLOWS[name]
    flow = testing.randomize_parameters(make(), 0.1)
    check_counts(flow, flow, tuple(flow.event_shape), networks)


@pytest.mark.parametrize("kind", CONTEXTS)
@pytest.mark.parametrize("name", TWINS)
def test_conditional(name: str, kind: str) -> None:
    make, networks = TWINS[name]
    options, context = CONTEXTS[kind]
    twin = testing.randomize_parameters(make(**options), 0.1)
    check_counts(twin, twin.condition(context), IMAGE, networks)


@pytest.mark.parametrize("name", ["glow", "nice", "realnvp"])
def test_a_training_step_of_a_model(name: str) -> None:
    options = {"nice": {"num_layers": 1}, "glow": {"num_steps": 2}}.get(name, {})
    model = getattr(models, name)(IMAGE, num_levels=17, width=4, num_classes=3, **options)
    x, labels = torch.randint(17, (6, *IMAGE)).float(), torch.arange(6) % 3
    counts = counter(model)
    models.ELBOLoss(model)(x, labels).backward()
    assert set(calls(counts)) == {1}

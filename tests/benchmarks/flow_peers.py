"""The flows of ``flow_steps.py`` in other libraries, each at the same configuration.

Coupling networks have the same layers (3x3, 1x1, 3x3 convolutions; or an MLP), and couplings the
scale that the library would use by default. Where one has no multi-scale flow or no alternation,
it is composed of the library's own parts.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Flow(Protocol):
    """What is measured: an ``nn.Module`` that scores and samples."""

    def log_prob(self, x: Tensor) -> Tensor: ...

    def sample(self, count: int) -> object: ...

    def eval(self) -> object: ...

    def parameters(self) -> Any: ...


class _Distribution(nn.Module):
    """A module that makes a torch distribution."""

    def __init__(self, make: Callable[[], Any], parts: nn.Module) -> None:
        super().__init__()
        self.make, self.parts = make, parts

    def log_prob(self, x: Tensor) -> Tensor:
        return self.make().log_prob(x)

    def sample(self, count: int) -> Tensor:
        return self.make().sample((count,))


class _WithoutContext(nn.Module):
    """A network of nflows, which passes a context always."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        return self.net(x)


def _mlp(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, following in itertools.pairwise(sizes):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def convolutions(seen: int, answers: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(seen, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 1),
        nn.ReLU(),
        nn.Conv2d(width, answers, 3, padding=1),
    )


def normflows_glow(levels: int, steps: int, width: int) -> Flow:
    import normflows as nf

    class Multiscale(nf.MultiscaleFlow):
        def log_prob(self, x: Tensor, y: None = None) -> Tensor:
            return super().log_prob(x, y)

    bases, flows, merges = [], [], []
    for i in range(levels):
        channels, side = 3 * 2 ** (levels + 1 - i), 32 // 2 ** (levels - i)
        blocks = [nf.flows.GlowBlock(channels, width, split_mode="channel") for _ in range(steps)]
        flows.append([*blocks, nf.flows.Squeeze()])
        merges += [nf.flows.Merge()] if i else []
        kept = channels if i == 0 else channels // 2
        bases.append(nf.distributions.GlowBase((kept, side, side)))
    return Multiscale(bases, flows, merges, class_cond=False)


def nflows_glow(levels: int, steps: int, width: int) -> Flow:
    from nflows import distributions, flows
    from nflows import transforms as parts

    def step(channels: int) -> list[nn.Module]:
        mask = torch.arange(channels) >= channels // 2  # positive where elements change
        coupling = parts.AffineCouplingTransform(
            mask, lambda seen, answers: _WithoutContext(convolutions(seen, answers, width))
        )
        return [parts.ActNorm(channels), parts.OneByOneConvolution(channels), coupling]

    whole, shape = parts.MultiscaleCompositeTransform(levels), (3, 32, 32)
    for _ in range(levels):
        shape = (4 * shape[0], shape[1] // 2, shape[2] // 2)
        chain = [part for _ in range(steps) for part in step(shape[0])]
        shape = whole.add_transform(
            parts.CompositeTransform([parts.SqueezeTransform(), *chain]), shape
        )
    return flows.Flow(whole, distributions.StandardNormal((3 * 32 * 32,)))


def normflows_vector(size: int, couplings: int, hidden: list[int]) -> Flow:
    import normflows as nf

    layers = []
    for _ in range(couplings):
        net = nf.nets.MLP([size // 2, *hidden, size])
        layers += [nf.flows.AffineCouplingBlock(net), nf.flows.Permute(size, mode="swap")]
    return nf.NormalizingFlow(nf.distributions.DiagGaussian(size, trainable=False), layers)


def nflows_vector(size: int, couplings: int, hidden: list[int]) -> Flow:
    from nflows import distributions, flows
    from nflows import transforms as parts

    def coupling(index: int) -> nn.Module:
        upper = torch.arange(size) >= size // 2
        return parts.AffineCouplingTransform(
            upper if index % 2 == 0 else ~upper,
            lambda seen, answers: _WithoutContext(_mlp([seen, *hidden, answers])),
        )

    chain = parts.CompositeTransform([coupling(i) for i in range(couplings)])
    return flows.Flow(chain, distributions.StandardNormal((size,)))


def zuko_vector(size: int, couplings: int, hidden: list[int]) -> Flow:
    import zuko

    flow = zuko.flows.RealNVP(size, transforms=couplings, hidden_features=hidden)
    return _Distribution(flow, flow)


def pyro_vector(size: int, couplings: int, hidden: list[int]) -> Flow:
    import pyro.distributions as dist
    from pyro.distributions import transforms as parts
    from pyro.nn import DenseNN

    half, layers = size // 2, []
    for _ in range(couplings):
        net = DenseNN(half, hidden, [size - half, size - half])
        swap = parts.Permute(torch.arange(size).roll(half))
        layers += [parts.AffineCoupling(half, net), swap]
    noise = dist.Normal(torch.zeros(size), 1.0).to_event(1)
    law = dist.TransformedDistribution(noise, layers)

    def fresh() -> Any:
        law.clear_cache()  # as Pyro's tutorials do after every step
        return law

    return _Distribution(fresh, nn.ModuleList(layers[::2]))


Makers = dict[str, Callable[..., Flow]]
GLOW_PEERS: Makers = {"normflows": normflows_glow, "nflows": nflows_glow}
VECTOR_PEERS: Makers = {
    "normflows": normflows_vector,
    "nflows": nflows_vector,
    "zuko": zuko_vector,
    "pyro": pyro_vector,
}


def available(makers: Makers) -> Makers:
    """Those whose library is installed."""
    found = {name: make for name, make in makers.items() if importlib.util.find_spec(name)}
    for name in sorted(set(makers) - set(found)):
        print(f"{name} is not installed")
    return found

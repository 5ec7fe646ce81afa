"""What flows cost beside peers: ``python tests/benchmarks/flow_steps.py [glow|vector|memory ...]``.

Training steps (mean log-probability, backward pass, Adam) and samples of one configuration in each
library that is installed (``pip install -e '.[benchmarks]'``). All run in one process, in a new
order every round, so that a change of the machine's speed meets all alike. Printed are medians,
and the ratio of ours to each peer: the median over rounds of ratios within a round, with its 95 %
bootstrap interval. The peers are built in ``flow_peers.py``.

``memory``: what a Glow at the paper's size keeps for the backward pass, its time, and how far its
gradients are from those of the plain evaluation, with and without ``checkpoint``.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from typing import NamedTuple

import pyro.distributions as dist
import torch
from flow_peers import GLOW_PEERS, VECTOR_PEERS, Flow, available, convolutions
from torch import Tensor, nn

from pyro_genmodels import nets, transforms
from pyro_genmodels.transforms.flows.multiscale import OnSqueezed

Run = Callable[[], object]
Times = dict[str, list[float]]


class How(NamedTuple):
    """How often to measure, by which clock."""

    rounds: int
    clock: Callable[[], float]


class Ours(nn.Module):
    """One of our transforms of a standard Gaussian, as a user would write it in Pyro."""

    def __init__(self, transform: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.transform = transform
        noise = dist.Normal(torch.zeros(shape), 1.0).to_event(len(shape))
        self.law = dist.TransformedDistribution(noise, [transform])

    def log_prob(self, x: Tensor) -> Tensor:
        return self.law.log_prob(x)

    def sample(self, count: int) -> Tensor:
        return self.law.sample((count,))


def our_glow(levels: int, steps: int, width: int, **options: bool) -> Flow:
    flow = transforms.Glow((3, 32, 32), num_scales=levels, num_steps=steps, width=width, **options)
    return Ours(flow, (3, 32, 32))


def our_glow_of_their_networks(levels: int, steps: int, width: int) -> Flow:
    """The peers' configuration: plain convolutions, and a standard Gaussian of what is left out."""

    def step(channels: int) -> transforms.FlowTransform:
        net = convolutions(channels // 2, channels, width)
        coupling = transforms.AffineCoupling(transforms.ChannelMask(), net, scale="sigmoid")
        parts = [coupling, transforms.InvertibleLinear(channels), transforms.ActNorm(channels)]
        return transforms.Chain(parts)

    def scale(channels: int, left: int) -> transforms.FlowTransform:
        later = [transforms.FactorOut(scale(2 * channels, left - 1))] if left > 1 else []
        chain = [*later, *(step(4 * channels) for _ in range(steps))]
        return OnSqueezed(transforms.Chain(chain))

    return Ours(scale(3, levels), (3, 32, 32))


def our_vector(size: int, couplings: int, hidden: list[int], *, scale: str = "exp") -> Flow:
    def coupling(index: int) -> transforms.AffineCoupling:
        net = nets.MLP(size // 2, size, hidden=hidden)
        mask = transforms.HalfMask(inverted=index % 2 == 1)
        return transforms.AffineCoupling(mask, net, scale=scale)

    return Ours(transforms.Chain([coupling(i) for i in range(couplings)]), (size,))


def training_step(flow: nn.Module, x: Tensor, loss: Callable[[], Tensor] | None = None) -> Run:
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        (-flow.log_prob(x).mean() if loss is None else loss()).backward()
        optimizer.step()

    return step


def sampling(flow: Flow, count: int) -> Run:
    def sample() -> None:
        with torch.no_grad():
            flow.sample(count)

    flow.eval()
    return sample


def bare_step(size: int, couplings: int, hidden: list[int], x: Tensor) -> Run:
    """The networks of the vector flow alone, with gradients of their inputs as a flow needs."""
    modules = nn.ModuleList(nets.MLP(size // 2, size, hidden=hidden) for _ in range(couplings))
    seen = x[:, : size // 2].clone().requires_grad_()
    return training_step(modules, x, lambda: sum(net(seen) for net in modules).sum())


def measure(runs: dict[str, Run], how: How) -> Times:
    """Seconds of each run, interleaved, the order shuffled in every round, after two to warm up."""
    times: Times = {name: [] for name in runs}
    for index in range(how.rounds + 2):
        for name in random.sample(list(runs), len(runs)):
            start = how.clock()
            runs[name]()
            if index > 1:
                times[name].append(how.clock() - start)
    return times


def ratio(ours: list[float], other: list[float]) -> str:
    """The median ratio within a round and its bootstrap interval."""
    ratios = torch.tensor(ours) / torch.tensor(other)
    picks = torch.randint(len(ratios), (2000, len(ratios)))
    low, high = ratios[picks].quantile(0.5, 1).quantile(torch.tensor([0.025, 0.975])).tolist()
    return f"{ratios.median():.3f} [{low:.3f}, {high:.3f}]"


def report(title: str, runs: dict[str, Run], sizes: dict[str, str], how: How) -> None:
    times = measure(runs, how)
    first = next(iter(times))
    print(f"{title}, median of {how.rounds} rounds; ratio: {first} to this", flush=True)
    for name, seconds in times.items():
        shown = "" if name == first else ratio(times[first], seconds)
        median = torch.tensor(seconds).median()
        print(f"  {name:22}{median * 1e3:9.1f} ms  {shown:24}{sizes.get(name, '')}", flush=True)


def compare(title: str, flows: dict[str, Flow], x: Tensor, bare: Run | None, how: How) -> None:
    """Train and sample every flow; report both."""
    sizes = {
        name: f"{sum(p.numel() for p in flow.parameters()):,} parameters"
        for name, flow in flows.items()
    }
    for flow in flows.values():
        flow.log_prob(x)  # first data
    steps = {name: training_step(flow, x) for name, flow in flows.items()}
    if bare is not None:
        steps["bare networks"] = bare
    report(f"{title}: training step", steps, sizes, how)
    samples = {name: sampling(flow, len(x)) for name, flow in flows.items()}
    report(f"{title}: sampling", {n: s for n, s in samples.items() if _runs(n, s)}, sizes, how)


def _runs(name: str, run: Run) -> bool:
    try:
        run()
    except Exception as error:
        print(f"  {name} does not sample: {type(error).__name__}: {str(error)[:90]}")
        return False
    return True


def report_glow(how: How) -> None:
    sizes = {"levels": 3, "steps": 8, "width": 512}
    flows = {
        "ours, their networks": our_glow_of_their_networks(**sizes),
        "Glow as published": our_glow(**sizes),
    }
    flows |= {name: make(**sizes) for name, make in available(GLOW_PEERS).items()}
    compare("Glow 3x8, width 512, 8 of 3x32x32", flows, torch.rand(8, 3, 32, 32), None, how)


def report_vector(how: How) -> None:
    sizes = {"size": 64, "couplings": 8, "hidden": [128, 128]}
    x = torch.randn(4096, 64)
    flows = {"ours": our_vector(**sizes), "ours, tanh": our_vector(**sizes, scale="tanh")}
    flows |= {name: make(**sizes) for name, make in available(VECTOR_PEERS).items()}
    bare = bare_step(**sizes, x=x)
    compare("RealNVP, 8 couplings, MLP 128-128, 4096 of 64", flows, x, bare, how)


def kept_bytes(flow: Flow, x: Tensor) -> int:
    """Bytes of the storages kept for the backward pass, parameters and the batch apart."""
    known = {t.untyped_storage().data_ptr() for t in (*flow.parameters(), *flow.buffers(), x)}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = flow.log_prob(x).mean()
    total = sum(storage.nbytes() for storage in kept.values())
    del value
    return total


def gradients(flow: Flow, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(flow.log_prob(x).mean(), list(flow.parameters())))


def report_memory(how: How, batch: int = 8) -> None:
    x = torch.rand(batch, 3, 32, 32)
    plain = our_glow(3, 32, 512)
    plain.log_prob(x)
    low = our_glow(3, 32, 512, checkpoint=True)
    low.load_state_dict(plain.state_dict())
    runs = {"checkpoint": lambda: gradients(low, x), "plain": lambda: gradients(plain, x)}
    report(f"Glow 3x32, width 512, {batch} of 3x32x32: gradient", runs, {}, how)
    pairs = zip(gradients(low, x), gradients(plain, x), strict=True)
    error = max(float((a - b).norm() / b.norm().clamp_min(1e-12)) for a, b in pairs)
    few, many = kept_bytes(low, x), kept_bytes(plain, x)
    print(
        f"  kept for the backward pass: {few / 2**20:.1f} MiB of {many / 2**20:.0f} MiB,", end=" "
    )
    print(f"1/{many / few:.0f}; largest relative error of a gradient {error:.1e}")


def main() -> None:
    reports = {"glow": report_glow, "vector": report_vector, "memory": report_memory}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", choices=[*reports, []], help="all, if none is named")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: on a busy machine"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time
    for name in arguments.what or reports:
        torch.manual_seed(0)
        reports[name](How(arguments.rounds * (8 if name == "vector" else 1), clock))


if __name__ == "__main__":
    main()

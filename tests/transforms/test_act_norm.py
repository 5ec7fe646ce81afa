"""First values from data: once, only in training, kept by copies, equal on all ranks."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch import multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from pyro_genmodels import nets, transforms
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.nets.layers.data_dependent_init import awaits_data


def layer() -> transforms.ActNorm:
    return transforms.ActNorm(3)


def glow(**options) -> transforms.Glow:
    return transforms.Glow((1, 4, 4), **{"num_steps": 2, "width": 4} | options)


PARTS = {
    "ActNorm": (layer, (3, 4, 5)),
    "GlowNet": (lambda: nets.GlowNet(3, 4, hidden_channels=5), (3, 4, 5)),
    "Glow": (glow, (1, 4, 4)),
    "Glow/checkpoint": (lambda: glow(checkpoint=True), (1, 4, 4)),
}
every_part = pytest.mark.parametrize("name", PARTS)


def data(name: str, count: int = 50) -> Tensor:
    return 5 + 2 * torch.randn(count, *PARTS[name][1])


def passes(part: nn.Module, y: Tensor) -> Tensor:
    """Data through the part: a network's only direction, a transform's inverse."""
    return part.inv(y) if isinstance(part, transforms.FlowTransform) else part(y)


def values(part: nn.Module) -> list[Tensor]:
    return [value.clone() for value in part.state_dict().values()]


def unchanged(part: nn.Module, before: list[Tensor]) -> bool:
    return all(map(torch.equal, before, part.state_dict().values()))


def started(name: str) -> nn.Module:
    part = PARTS[name][0]()
    passes(part, data(name))
    return part


def test_the_first_data_are_standardised() -> None:
    y = data("ActNorm")
    norm = layer()
    x = norm.inv(y)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.var((0, 2, 3), unbiased=False), torch.ones(3))
    torch.testing.assert_close(norm(x), y)
    pixels_times_log = 20 * 3 * norm.log_scale.sum()
    torch.testing.assert_close(norm.inv.log_abs_det_jacobian(y, x)[0], pixels_times_log)


def test_inner_normalisations_are_standardised_too() -> None:
    net = nets.GlowNet(3, 4, hidden_channels=5)
    seen = []
    for part in net.hidden:
        part.register_forward_hook(lambda _, inputs, output: seen.append(output.clone()))
    net(data("GlowNet"))
    for output in seen:
        torch.testing.assert_close(output.mean((0, 2, 3)), torch.zeros(5), atol=1e-5, rtol=0)
        torch.testing.assert_close(output.var((0, 2, 3), unbiased=False), torch.ones(5))


@every_part
def test_once_and_only_in_training(name) -> None:
    part = PARTS[name][0]().eval()
    before = values(part)
    with torch.no_grad():
        passes(part, data(name))
    assert unchanged(part, before)
    assert awaits_data(part)
    part.train()
    passes(part, data(name))
    assert not unchanged(part, before)
    assert not awaits_data(part)
    before = values(part)
    for factor in (3, 0.1):
        passes(part, factor * data(name))
    assert unchanged(part, before)


@every_part
def test_copies_and_loads_do_not_start_again(name) -> None:
    part = started(name)
    loaded, rebuilt = PARTS[name][0](), build(configuration(part))
    for other in (loaded, rebuilt):
        other.load_state_dict(part.state_dict())
    copies = [loaded, rebuilt, copy.deepcopy(part), pickle.loads(pickle.dumps(part))]
    before = values(part)
    for other in copies:
        passes(other.train(), 3 * data(name))
        assert unchanged(other, before)


def test_a_copy_made_before_any_data_starts_by_itself() -> None:
    norm = layer()
    other = copy.deepcopy(norm)
    norm.inv(data("ActNorm"))
    assert awaits_data(other)
    other.inv(7 * data("ActNorm"))
    assert not torch.equal(other.log_scale, norm.log_scale)


def test_a_state_from_before_any_data_starts_over() -> None:
    """Loading goes both ways: an initialised layer takes over that another is not."""
    norm = started("ActNorm")
    norm.load_state_dict(layer().state_dict())
    assert awaits_data(norm)
    norm.inv(data("ActNorm"))
    assert float(norm.shift.detach().abs().min()) > 4


@every_part
def test_gradients_reach_what_data_have_set(name) -> None:
    part = PARTS[name][0]()
    y = data(name)
    (passes(part, y).square().sum() + 0).backward()
    scales = {n: p for n, p in part.named_parameters() if n.endswith("shift")}
    assert scales
    inner = [n for n, p in scales.items() if p.grad is None]
    assert not inner


@pytest.mark.parametrize("name", ["ActNorm", "Glow"])
def test_a_constant_channel_is_only_shifted(name) -> None:
    part = PARTS[name][0]()
    y = data(name)
    y[:, 0] = 1e4
    x = part.inv(y)
    assert bool(torch.isfinite(x).all())
    assert bool(torch.isfinite(part.log_abs_det_jacobian(x, y)).all())
    if name == "ActNorm":
        assert float(part.log_scale.detach()[0]) == 0
        assert float(x[:, 0].detach().abs().max()) == 0


def test_a_narrow_channel_far_from_zero_is_resolved() -> None:
    y = (1000 + torch.randn(500, 3, 4, 5, dtype=torch.float64) * 0.01).float()
    x = layer().inv(y)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(3), atol=0.01, rtol=0)


@pytest.mark.parametrize("name", ["ActNorm", "Glow"])
def test_noise_before_data_is_one_clear_error(name) -> None:
    part = PARTS[name][0]()
    before, x = values(part), data(name, 2)
    for score in (part, lambda v: part.log_abs_det_jacobian(v, v)):
        with pytest.raises(ValueError, match="score data once in training mode, or call `initial"):
            score(x)
        assert unchanged(part, before)
    assert part.eval()(x).shape == x.shape
    part.train().initialize(data(name))
    assert part(x).shape == x.shape


@pytest.mark.parametrize("training", [True, False])
def test_initialize(training) -> None:
    first = glow()
    second = copy.deepcopy(first)
    y = data("Glow", 100)
    first.train(training).initialize(y)
    assert first.training is training
    assert all(p.grad is None for p in first.parameters())
    second.inv(y)
    for name, value in first.state_dict().items():
        torch.testing.assert_close(value, second.state_dict()[name])
    before = values(first)
    first.initialize(9 * y)
    assert unchanged(first, before)


def test_initialize_of_a_conditional_flow() -> None:
    twin = transforms.ConditionalGlow((1, 4, 4), num_classes=3, num_steps=1, width=4)
    twin.flow.initialize(data("Glow", 6), torch.arange(6) % 3)
    assert not awaits_data(twin)


@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
def test_first_data_of_any_batch_shape(batch) -> None:
    norm, y = transforms.act_norm(3), torch.randn(*batch, 3)
    x = norm.inv(y)
    torch.testing.assert_close(x.reshape(-1, 3).mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(norm(x), y)


def test_no_data_at_all_set_nothing() -> None:
    norm = transforms.act_norm(3)
    with pytest.raises(ValueError, match="`y` must be finite where it sets first values"):
        norm.inv(torch.zeros(0, 3))
    assert awaits_data(norm)


def test_data_that_are_not_finite_set_nothing() -> None:
    norm = layer()
    before, y = values(norm), data("ActNorm")
    y[0, 1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="`y` must be finite where it sets first values"):
        norm.inv(y)
    assert unchanged(norm, before)
    norm.inv(data("ActNorm"))


def _score_rank(rank: int, folder: str) -> None:
    """One of two processes with data of its own."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", store, rank=rank, world_size=2)
    torch.manual_seed(0)
    everything = 5 + 2 * torch.randn(60, 1, 4, 4, dtype=torch.float64)
    flow = glow().double()
    flow.load_state_dict(torch.load(f"{folder}/start.pt"))

    class Density(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flow = flow

        def forward(self, y: Tensor) -> Tensor:
            x = self.flow.inv(y)
            return x.square().sum() - self.flow.inv.log_abs_det_jacobian(y, x).sum()

    ranked = DistributedDataParallel(Density())
    ranked(everything[:25] if rank == 0 else everything[25:]).backward()
    torch.save(flow.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    # Not through the group's own end: in torch 2.6 gloo can wait for ever for a rank that left.
    os._exit(0)


def test_two_ranks_start_as_one_would(tmp_path: Path) -> None:
    flow = glow().double()
    torch.save(flow.state_dict(), tmp_path / "start.pt")
    mp.spawn(_score_rank, (str(tmp_path),), nprocs=2)
    torch.manual_seed(0)
    flow.inv(5 + 2 * torch.randn(60, 1, 4, 4, dtype=torch.float64))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, value in flow.state_dict().items():
        torch.testing.assert_close(first[name], second[name], atol=1e-6, rtol=0)
        torch.testing.assert_close(first[name], value, atol=1e-6, rtol=0)

"""Laws of NVAE's parts: normalised kernels, spectral norms, cells, masks, checkpointing."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels import testing
from pyro_genmodels.nets.layers.checkpointing import checkpointed
from pyro_genmodels.nets.nvae.cells import AutoregressiveShift, DecoderCell, EncoderCell
from pyro_genmodels.nets.nvae.layers import BatchNorm, FactorizedReduce, RegularizedConv2d
from pyro_genmodels.nets.nvae.regularization import BatchNormScales, SpectralNorms

pytestmark = pytest.mark.usefixtures("double")
CELLS: dict[str, Callable[[], nn.Module]] = {
    "encoder": lambda: EncoderCell(8),
    "encoder-down": lambda: EncoderCell(8, halves=True),
    "decoder": lambda: DecoderCell(8),
    "decoder-up": lambda: DecoderCell(8, doubles=True),
    "decoder-narrow": lambda: DecoderCell(8, expansion=3),
}
every_cell = pytest.mark.parametrize("make", CELLS.values(), ids=CELLS)


def moved(make: Callable[[], nn.Module]) -> nn.Module:
    return testing.randomize_parameters(make())


def test_a_kernel_has_the_length_it_learned() -> None:
    conv = moved(lambda: RegularizedConv2d(3, 5, 3))
    length = conv.kernel().flatten(1).norm(dim=1)
    torch.testing.assert_close(length, conv.log_length.exp().flatten(), rtol=1e-4, atol=0)
    fresh = RegularizedConv2d(3, 5, 3)
    torch.testing.assert_close(fresh.kernel(), fresh.weight, rtol=1e-4, atol=0)


def test_spectral_norms_are_those_of_svd() -> None:
    network = nn.Sequential(*(moved(make) for make in CELLS.values()))
    norms = SpectralNorms(network)
    for _ in range(80):
        value = norms()
    convs = [m for m in network.modules() if isinstance(m, RegularizedConv2d)]
    exact = [torch.linalg.matrix_norm(conv.kernel().flatten(1), 2) for conv in convs]
    assert float((value - sum(exact)).detach().abs()) < 1e-6
    own = torch.autograd.grad(value, convs[0].weight)[0]
    torch.testing.assert_close(own, torch.autograd.grad(exact[0], convs[0].weight)[0])


def test_power_iteration_goes_on_from_where_it_was() -> None:
    network = nn.Sequential(EncoderCell(8), DecoderCell(8))
    norms = SpectralNorms(network)
    norms()
    other = SpectralNorms(network)
    other.load_state_dict(norms.state_dict())
    assert torch.equal(norms(), other())
    assert torch.equal(copy.deepcopy(norms)(), pickle.loads(pickle.dumps(norms))())
    assert not any("weight" in name for name, _ in norms.named_parameters())


def test_scales_of_batch_norms_are_maxima() -> None:
    cell = moved(CELLS["decoder"])
    layers = [m for m in cell.modules() if isinstance(m, BatchNorm)]
    expected = sum(layer.weight.abs().max() for layer in layers)
    torch.testing.assert_close(BatchNormScales(cell)(), expected)


@every_cell
def test_a_cell_adds_a_tenth_of_its_branch_to_its_skip_path(make) -> None:
    cell = moved(make).eval()
    x = torch.randn(2, 8, 4, 6)
    output = cell(x)
    halved, doubled = isinstance(cell.skip, FactorizedReduce), getattr(cell, "doubles", False)
    sizes = {(True, False): (16, 2, 3), (False, True): (4, 8, 12)}
    assert output.shape == (2, *sizes.get((halved, doubled), (8, 4, 6)))
    with torch.no_grad():
        cell.excitation.gate[2].bias.fill_(-1e3)  # gates shut
        cell.excitation.gate[2].weight.zero_()
    skip = cell.skip(x)
    if doubled:
        skip = F.interpolate(skip, scale_factor=2, mode="bilinear", align_corners=True)
    torch.testing.assert_close(cell(x), skip)
    assert not torch.allclose(output, skip)


def test_doubling_late_is_doubling_early() -> None:
    """The published order: the input is doubled, then all of the cell runs on it."""
    cell = moved(CELLS["decoder-up"])
    x = torch.randn(3, 8, 4, 6)
    early = cell.project(cell.expand(F.interpolate(x, scale_factor=2)))
    smooth = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    torch.testing.assert_close(cell(x), cell.excitation(early, cell.skip(smooth)))


def test_reduction_sees_each_pixel() -> None:
    layer = moved(lambda: FactorizedReduce(2, 8))
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    layer(x).sum().backward()
    assert bool((x.grad != 0).all())


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_shift_sees_only_what_comes_before(mirrored: bool) -> None:
    """In raster order, and within a pixel in the order of its channels."""
    shift = moved(lambda: AutoregressiveShift(2, mirrored=mirrored, expansion=2))
    jacobian = torch.autograd.functional.jacobian(lambda z: shift(z[None])[0], torch.randn(2, 3, 4))
    matrix = jacobian.permute(1, 2, 0, 4, 5, 3).reshape(24, 24)
    matrix = matrix.T if mirrored else matrix
    assert bool((matrix.triu() == 0).all())
    assert bool((matrix.diagonal(-1)[::2] != 0).all())  # a pixel's second channel sees its first


class TestCheckpointing:
    """Evaluating cells twice changes nothing but memory."""

    @every_cell
    def test_gradients_and_statistics_are_equal(self, make) -> None:
        plain = moved(make)
        other = copy.deepcopy(plain)
        x = torch.randn(4, 8, 4, 4)
        results = []
        for cell, run in ((plain, plain), (other, lambda x: checkpointed(other, x))):
            leaf = x.clone().requires_grad_()
            output = run(leaf)
            output.square().sum().backward()
            results.append([output.detach(), leaf.grad, *(p.grad for p in cell.parameters())])
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
        for (name, a), (_, b) in zip(plain.named_buffers(), other.named_buffers(), strict=True):
            assert torch.equal(a, b), name

    @every_cell
    def test_a_second_backward_pass(self, make) -> None:
        plain = moved(make)
        other = copy.deepcopy(plain)
        x = torch.randn(4, 8, 4, 4)
        results = []
        for cell, run in ((plain, plain), (other, lambda x: checkpointed(other, x))):
            leaf = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(run(leaf).square().sum(), leaf, create_graph=True)
            for _ in range(2):
                slope.square().sum().backward(retain_graph=True)
            results.append([leaf.grad, *(p.grad for p in cell.parameters()), *cell.buffers()])
        for a, b in zip(*results, strict=True):
            assert (a is None and b is None) or torch.equal(a, b)

    def test_only_the_input_is_kept(self) -> None:
        cell, x = DecoderCell(8), torch.randn(4, 8, 4, 4)
        whole, kept = (
            saved_bytes(cell, lambda: cell(x)),
            saved_bytes(cell, lambda: checkpointed(cell, x)),
        )
        assert kept <= x.numel() * x.element_size() < whole / 4


def saved_bytes(module: nn.Module, evaluate: Callable[[], Tensor]) -> int:
    """Bytes that are kept for a backward pass, besides parameters and buffers."""
    own = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = evaluate()
    del result
    return sum(kept.values())

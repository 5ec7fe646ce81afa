"""Laws of denoisers: any batch shapes, null contexts, padding, levels, published sizes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from pyro_genmodels import nets, testing
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.nets.denoisers.conditioning import LevelEmbedding
from pyro_genmodels.nets.denoisers.layers import SelfAttention, attend, group_norm
from tests.cases import Case
from tests.cases.nets import sequence_unet, unet
from tests.test_laws import DENOISERS, normal, prepared

pytestmark = pytest.mark.usefixtures("double")
every_case = pytest.mark.parametrize("make", DENOISERS.values(), ids=DENOISERS)

CONTEXTS: dict[str, tuple[dict[str, Any], Tensor]] = {
    "labels": ({"num_classes": 3}, torch.tensor([0, 2])),
    "vectors": ({"context_shape": (2,)}, normal(2, 2).double()),
}
MAPS: dict[str, tuple[dict[str, Any], Tensor]] = {
    "maps": ({"context_shape": (2, 3, 5)}, normal(2, 2, 3, 5).double()),
    "maps of another size": ({"context_shape": (2, 6, 10)}, normal(2, 2, 6, 10).double()),
}
SEQUENCES = {"sequences": ({"context_shape": (2, 4)}, normal(2, 2, 4).double())}
# A network of each class with each kind of context, made with `null_context` or without.
CONDITIONAL: dict[str, tuple[Callable[..., nets.Denoiser], tuple[int, ...], Tensor]] = {
    f"{name}-{kind}": (lambda make=make, options=options, **o: make(**options, **o), shape, context)
    for name, make, shape, kinds in [
        ("dense", lambda **o: nets.DenseDenoiser(3, 3, hidden=(8,), **o), (3,), CONTEXTS),
        ("sequences", lambda **o: sequence_unet(1, 2, **o), (1, 5), CONTEXTS | SEQUENCES),
        ("maps", lambda **o: unet(1, 2, **o), (1, 3, 5), CONTEXTS | MAPS),
        ("scaled", lambda **o: unet(1, 1, scale_shift=True, **o), (1, 3, 5), CONTEXTS),
    ]
    for kind, (options, context) in kinds.items()
}
each_kind = pytest.mark.parametrize("name", CONDITIONAL)


@every_case
def test_the_output_starts_at_zero(make: Callable[[], Case]) -> None:
    case = make()
    context = None if case.context is None else case.context
    output = case.part(normal(2, *case.event_shape), torch.rand(2), context)
    assert torch.equal(output, torch.zeros_like(output))
    assert output.requires_grad


@every_case
def test_shapes_are_as_declared(make: Callable[[], Case]) -> None:
    case = make()
    declared = case.part.input_shape
    assert len(declared) == len(case.event_shape)
    assert all(d in (-1, size) for d, size in zip(declared, case.event_shape, strict=True))
    given = () if case.context is None else (case.context[0],)
    output = case.part(torch.zeros(case.event_shape), torch.tensor(0.5), *given)
    channels, *sizes = case.part.output_shape
    expected = [channels, *(case.event_shape[1:] if sizes else ())]
    assert list(output.shape) == expected


@every_case
def test_every_argument_matters(make: Callable[[], Case]) -> None:
    """Input, level and each parameter; only what the null context alone reads waits for it."""
    case = prepared(make)
    z = normal(2, *case.event_shape).requires_grad_()
    level = torch.tensor([0.2, 0.7], requires_grad=True)
    case.part(z, level, case.context).square().sum().backward()
    assert z.grad is not None
    assert level.grad is not None
    assert (z.grad.flatten(1) != 0).all()
    assert (level.grad != 0).all()
    unread = [name for name, p in case.part.named_parameters() if p.grad is None]
    assert unread == (["null"] if case.part.null_context else [])


@every_case
def test_checkpointing_changes_nothing(make: Callable[[], Case]) -> None:
    """In training, with dropout, also for a gradient of a gradient: attention too has second ones.

    Networks whose scores are gradients, and losses of their derivatives, need them.
    """
    arguments = {**make().part.current_arguments(), "dropout": 0.3, "checkpointing": True}
    case = make()
    net = testing.randomize_parameters(type(case.part)(**arguments))
    options = {"keep": torch.tensor([True, False])} if net.null_context else {}
    z = normal(2, *case.event_shape)

    def loss(network: Any) -> Tensor:
        output: Tensor = network(z, torch.tensor([0.2, 0.7]), case.context, **options)
        return output.square().sum()

    testing.check_checkpointing(net, loss)


@pytest.mark.parametrize("name", ["UNet", "SequenceUNet", "DenseDenoiser"])
def test_checkpointing_keeps_less(name: str) -> None:
    """In elements that the backward pass holds, parameters aside."""
    case = DENOISERS[name]()
    net, held = case.part, {False: 0, True: 0}
    z = normal(2, *case.event_shape)
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    for net.checkpointing in held:

        def pack(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in own:
                held[net.checkpointing] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            net(z, torch.tensor(0.5)).sum()
    assert held[True] < 0.5 * held[False]


@every_case
def test_a_network_comes_back_from_its_configuration(make: Callable[[], Case]) -> None:
    case = prepared(make)
    again = build(configuration(case.part)).double().eval()
    again.load_state_dict(case.part.state_dict())
    given = (normal(2, *case.event_shape), torch.tensor(0.5), case.context)
    assert torch.equal(again(*given), case.part(*given))


@pytest.mark.parametrize("null_context", [False, True])
@each_kind
def test_each_kind_of_context(name: str, null_context: bool) -> None:
    make, shape, contexts = CONDITIONAL[name]
    net = testing.randomize_parameters(make(null_context=null_context)).eval()
    testing.check_denoiser(net, normal(*shape), contexts)


@each_kind
def test_both_forms_that_guidance_compares_are_one_call(name: str) -> None:
    make, shape, contexts = CONDITIONAL[name]
    net = testing.randomize_parameters(make(null_context=True)).eval()
    z, level = normal(2, *shape), torch.tensor([0.2, 0.7])
    conditional, null = net(z, level, contexts), net(z, level)
    both = net(z, level, contexts, keep=torch.tensor([[True], [False]]))
    torch.testing.assert_close(both, torch.stack([conditional, null]))
    assert not torch.allclose(conditional, null)


def test_which_to_keep_is_boolean() -> None:
    net = unet(1, 1, num_classes=3, null_context=True)
    with pytest.raises((ValueError, TypeCheckError), match="keep"):
        net(torch.zeros(2, 1, 4, 4), torch.tensor(0.5), torch.tensor(1), keep=torch.ones(2))


@pytest.mark.parametrize("null_context", [False, True])
def test_the_null_class_is_not_a_label(null_context: bool) -> None:
    net = unet(1, 1, num_classes=3, null_context=null_context)
    with pytest.raises(
        ValueError, match=r"`context` must be labels from 0 to 2 .*got values from 3"
    ):
        net(torch.zeros(1, 4, 4), torch.tensor(0.5), torch.tensor(3))


@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 1, 2, 2)])
@pytest.mark.parametrize("sizes", [(1, 1), (1, 7), (5, 3), (9, 16), (6,), (1,), (11,)])
def test_any_size(sizes: tuple[int, ...], multipliers: tuple[int, ...]) -> None:
    """The output has the input's size, and depends on each of its elements."""
    make = unet if len(sizes) == 2 else sequence_unet
    net = testing.randomize_parameters(make(1, 2, channels=8, multipliers=multipliers))
    z = normal(3, 1, *sizes).requires_grad_()
    output = net(z, torch.tensor(0.5))
    assert output.shape == (3, 2, *sizes)
    gradient = torch.autograd.grad(output.square().sum(), z)[0]
    assert (gradient != 0).all()


def test_padding_repeats_the_last_row_and_column() -> None:
    net = testing.randomize_parameters(unet(1, 1, multipliers=(1, 1, 1)))
    z, level = normal(2, 1, 5, 7), torch.tensor(0.5)
    rows, columns = torch.arange(8).clamp(max=4), torch.arange(8).clamp(max=6)
    padded = net(z[:, :, rows][..., columns], level)
    torch.testing.assert_close(net(z, level), padded[..., :5, :7])


def test_an_empty_batch() -> None:
    for net, shape in ((unet(1, 2), (1, 3, 3)), (nets.DenseDenoiser(3, 2), (3,))):
        output = net(torch.zeros(0, *shape), torch.zeros(0))
        assert output.shape == (0, 2, *shape[1:])


def test_levels_a_thousandth_apart_differ() -> None:
    """Of one network in float32, under autocast too, where half precision would make them one."""
    embedding = LevelEmbedding(32, 16).float()
    levels = torch.linspace(0, 1, 1001, dtype=torch.float32)
    plain = embedding(levels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(embedding(levels), plain)
    for features in (plain, embedding(levels.double()).float()):
        distances = features.diff(dim=0).norm(dim=1)
        assert distances.min() > 0.1 * distances.mean() > 0


def test_sinusoids_are_those_of_ddpm() -> None:
    """At integer steps of a thousand."""
    embedding = LevelEmbedding(8, 8)
    for layer in (embedding.first, embedding.second):
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    angles = 321 * torch.exp(-torch.arange(4) * torch.log(torch.tensor(10000.0)) / 3)
    expected = torch.nn.functional.silu(torch.cat([angles.sin(), angles.cos()]))
    torch.testing.assert_close(embedding(torch.tensor(0.321)), expected)


@every_case
def test_autocast(make: Callable[[], Case]) -> None:
    case = prepared(make)
    net = case.part.float()
    context = case.context
    context = context.float() if context is not None and context.is_floating_point() else context
    given = normal(2, *case.event_shape).float(), torch.tensor([0.2, 0.7]).float(), context
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = net(*given)
    assert (coarse.float() - net(*given)).abs().max() < 0.1 * (1 + net(*given).abs().max())


@pytest.mark.parametrize("channels", [1, 3, 8, 24, 32, 48, 60, 128, 256])
def test_groups_have_several_channels(channels: int) -> None:
    """One channel of one pixel would be normalised to zero, and the input be lost."""
    norm = group_norm(channels, 2)
    assert norm.num_groups <= 32
    assert channels // norm.num_groups >= min(channels, 4)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_attention_is_that_of_torch(heads: int) -> None:
    layer = testing.randomize_parameters(SelfAttention(6, heads))
    x = normal(2, 6, 3, 4)
    h = layer.norm(x).flatten(2).mT
    torch_layer = torch.nn.MultiheadAttention(6, heads, batch_first=True)
    torch_layer.load_state_dict(
        {
            "in_proj_weight": layer.queries_keys_values.weight,
            "in_proj_bias": layer.queries_keys_values.bias,
            "out_proj.weight": layer.output.weight,
            "out_proj.bias": layer.output.bias,
        }
    )
    expected = x + torch_layer(h, h, h)[0].mT.reshape(x.shape)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 3)])
def test_attention_is_at_the_smallest_size_by_default(multipliers: tuple[int, ...]) -> None:
    smallest = [2 ** (len(multipliers) - 1)] if len(multipliers) > 1 else []
    by_default, explicit = (
        nets.UNet(1, 1, channels=4, multipliers=multipliers, **options).state_dict()
        for options in ({}, {"attention": smallest})
    )
    assert by_default.keys() == explicit.keys()


def test_long_attention_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    given = normal(3, 2, 1, 10, 4)
    explicit = attend(*given)
    monkeypatch.setattr("pyro_genmodels.nets.denoisers.layers._MOST_EXPLICIT", 5)
    torch.testing.assert_close(attend(*given), explicit)


@pytest.mark.once  # torch 2.6 has no forward derivative of group norm with channels last
def test_derivatives_of_the_score() -> None:
    """Forward ones, which traces of a Jacobian take, are the same as backward ones."""
    net = testing.randomize_parameters(unet(1, 1, attention=(1, 2)))
    z, level = normal(1, 3, 3), torch.tensor(0.5)

    def score(z: Tensor) -> Tensor:
        output: Tensor = net(z, level)
        return output

    forward = torch.func.jacfwd(score)(z)
    torch.testing.assert_close(forward, torch.func.jacrev(score)(z))


PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    # Of diffusers' google/ddpm-cifar10-32 and google/ddpm-celebahq-256, made from the paper's code.
    "DDPM, CIFAR-10": (
        {"multipliers": (1, 2, 2, 2), "attention": (2,), "dropout": 0.1},
        35_746_307,
    ),
    "DDPM, 256x256": ({"multipliers": (1, 1, 2, 2, 4, 4), "attention": (16,)}, 113_673_219),
    "improved DDPM, CIFAR-10": (
        {
            "out_channels": 6,
            "multipliers": (1, 2, 2, 2),
            "num_blocks": 3,
            "attention": (2, 4),
            "num_heads": 4,
            "scale_shift": True,
        },
        52_546_438,
    ),
    # The paper's 30.6 M. Its code has 8,064 fewer: no biases beside those of the convolutions in
    # the 67 blocks' projections of the level (128 each), and an input for a context, held at zero
    # (512). Twelve of the input's channels are Fourier features.
    "VDM, CIFAR-10": (
        {"in_channels": 15, "multipliers": (1,), "num_blocks": 32},
        30_578_179 + 67 * 128 - 512,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    options, expected = PUBLISHED[name]
    with torch.device("meta"):
        net = nets.UNet(**{"in_channels": 3, "out_channels": 3, "channels": 128, **options})
    assert sum(p.numel() for p in net.parameters()) == expected


def test_a_network_of_the_users_own() -> None:
    class Exact(nets.Denoiser):
        def __init__(self) -> None:
            super().__init__([2], [2])

        def forward(self, z: Any, level: Any, context: Any = None, *, keep: Any = None) -> Any:
            return level.sqrt()[..., None] * z

    net = Exact()
    assert (net.num_classes, net.context_shape, net.null_context) == (None, None, False)
    assert net(torch.ones(2), torch.tensor(0.25)).tolist() == [0.5, 0.5]
    with pytest.raises(TypeError, match="abstract"):
        nets.Denoiser([2], [2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nets.UNet(0, 1), "`in_channels` must be positive; got 0."),
        (lambda: nets.UNet(1, 1, channels=0), "`channels` must be positive; got 0."),
        (lambda: nets.UNet(1, 1, num_blocks=0), "`num_blocks` must be positive; got 0."),
        (lambda: nets.UNet(1, 1, multipliers=()), "`multipliers` must be positive sizes; got ()."),
        (
            lambda: nets.UNet(1, 1, attention=(3,)),
            "`attention` must be factors of downsampling that occur, among 1, 2; got (3,).",
        ),
        (
            lambda: nets.UNet(1, 1, channels=4, num_heads=3),
            "`num_heads` must be positive and divide the 8 channels where there is attention; "
            "got 3.",
        ),
        (
            lambda: nets.UNet(1, 1, null_context=True),
            "`null_context` must be False without num_classes or context_shape; got True.",
        ),
        (
            lambda: nets.DenseDenoiser(2, 2, context_shape=(1, 2, 2)),
            "`context_shape` must be positive sizes (D,); got (1, 2, 2).",
        ),
        (lambda: nets.DenseDenoiser(2, 2, hidden=()), "`hidden` must be positive sizes; got ()."),
        (
            lambda: unet(2, 1)(torch.zeros(3, 4, 4), torch.tensor(0.5)),
            "`z` must have trailing shape (2, H, W); got shape (3, 4, 4).",
        ),
        (
            lambda: sequence_unet(2, 1)(torch.zeros(2), torch.tensor(0.5)),
            "`z` must have trailing shape (2, L); got shape (2,).",
        ),
        (
            lambda: nets.DenseDenoiser(2, 1)(torch.zeros(3), torch.tensor(0.5)),
            "`z` must have trailing shape (2,); got shape (3,).",
        ),
        (
            lambda: unet(1, 1)(torch.zeros(2, 1, 4, 4), torch.zeros(3)),
            "batch shapes must broadcast; got (2,) and (3,).",
        ),
        (
            lambda: unet(1, 1, num_classes=2)(
                torch.zeros(2, 1, 4, 4), torch.zeros(2), torch.zeros(3, dtype=torch.long)
            ),
            "batch shapes must broadcast; got (2,) and (3,).",
        ),
    ],
)
def test_errors(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()

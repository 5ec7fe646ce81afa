"""Bad input: one clear error, at construction where it can be known there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pyro_genmodels import models, nets, transforms

WHOLE = {
    "Glow": lambda shape, **o: transforms.Glow(shape, num_steps=1, width=4, **o),
    "NICE": lambda shape, **o: transforms.NICE(shape, width=4, num_layers=1, **o),
    "RealNVP": lambda shape, **o: transforms.RealNVP(shape, width=4, num_couplings=1, **o),
    "NeuralSplineFlow": lambda shape, **o: transforms.NeuralSplineFlow(shape, width=4, **o),
}
TWINS = {
    "Glow": transforms.ConditionalGlow,
    "NICE": transforms.ConditionalNICE,
    "RealNVP": transforms.ConditionalRealNVP,
    "NeuralSplineFlow": transforms.ConditionalNeuralSplineFlow,
}
every_flow = pytest.mark.parametrize("name", WHOLE)


def refuses(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1


@every_flow
@pytest.mark.parametrize("shape", [0, (), (0,), (3, 4), (1, 0, 4), (1, 2, 3, 4)])
def test_impossible_shapes(name: str, shape: object) -> None:
    refuses(lambda: WHOLE[name](shape), "`event_shape` must be positive sizes")


@every_flow
def test_a_label_beside_features(name: str) -> None:
    flow = TWINS[name](4, num_classes=2, context_shape=(2,))
    rule = "`context` must begin with labels, whole numbers from 0 to 1; got 2.0"
    refuses(lambda: flow.condition(torch.tensor([2.0, 0.3, 0.1])), rule)
    refuses(lambda: flow.condition(torch.zeros(2)), "`context` must have trailing shape \\(3,\\)")


@every_flow
def test_no_context_for_a_twin(name: str) -> None:
    refuses(lambda: TWINS[name](4), "must be given for a conditional flow")


@every_flow
@pytest.mark.parametrize("context", [torch.zeros(3), torch.zeros(4, 1), torch.tensor(1.0)])
def test_a_context_of_the_wrong_width(name: str, context: torch.Tensor) -> None:
    twin = transforms.ConditionalFlow(WHOLE[name](4, context_shape=(2,)))
    refuses(lambda: twin.condition(context), r"`context` must have trailing shape \(2,\)")


@every_flow
def test_labels_out_of_range(name: str) -> None:
    twin = transforms.ConditionalFlow(WHOLE[name](4, num_classes=2))
    for label in (torch.tensor(2), torch.tensor(-1)):
        refuses(lambda label=label: twin.condition(label), "`context` must be labels from 0 to 1")


@every_flow
def test_no_context_where_one_is_due(name: str) -> None:
    flow = WHOLE[name](4, num_classes=2).eval()
    refuses(lambda: flow(torch.zeros(3, 4)), "`context` must be labels")


@every_flow
def test_a_context_that_does_not_broadcast(name: str) -> None:
    flow = transforms.ConditionalFlow(WHOLE[name](4, num_classes=2)).condition(
        torch.zeros(5).long()
    )
    refuses(lambda: flow.inv(torch.zeros(3, 4)), "batch shapes must broadcast")


@every_flow
def test_data_of_another_shape_or_type(name: str) -> None:
    flow = WHOLE[name](4)
    refuses(lambda: flow.inv(torch.zeros(5)), r"`y` must have trailing shape \(4,\)")
    refuses(lambda: flow.inv(torch.zeros(4).long()), "`y` must be of a floating dtype")


LEVELS = {
    "Glow": (lambda **o: transforms.Glow((1, 6, 8), num_steps=1, width=4, **o), 2, 4),
    "RealNVP": (lambda **o: transforms.RealNVP((1, 6, 8), width=4, **o), 3, 4),
    "NeuralSplineFlow": (lambda **o: transforms.NeuralSplineFlow((1, 6, 8), width=4, **o), 3, 4),
}


@pytest.mark.parametrize("name", LEVELS)
def test_a_height_that_the_levels_do_not_divide(name: str) -> None:
    make, scales, factor = LEVELS[name]
    message = f"`height` must be divisible by {factor} for {scales} scales; got 6"
    refuses(lambda: make(num_scales=scales), message)


MASKS = {
    "one channel": (transforms.ChannelMask(), (1, 4, 4)),
    "one pixel": (transforms.Checkerboard(), (3, 1, 1)),
}


@pytest.mark.parametrize("kind", ["additive", "affine", "spline"])
@pytest.mark.parametrize("name", MASKS)
def test_a_mask_that_leaves_a_part_empty(name: str, kind: str) -> None:
    mask, shape = MASKS[name]
    message = r"`mask` must leave no part of an event empty; got .*Mask.*|Checkerboard"
    refuses(lambda: getattr(transforms, f"{kind}_coupling")(shape, mask=mask), message)
    # Of a coupling with a network of one's own the events are known when they come.
    layer = transforms.AdditiveCoupling(mask, torch.nn.Identity())
    refuses(lambda: layer(torch.zeros(2, *shape)), message)


def test_a_factored_out_half_of_one_channel() -> None:
    layer = transforms.FactorOut(transforms.Permute([0]))
    refuses(lambda: layer(torch.zeros(2, 1, 4, 4)), "`mask` must leave no part of an event empty")


@pytest.mark.parametrize(("shape", "mask"), [((4,), transforms.HalfMask()), ((2, 3, 3), None)])
@pytest.mark.parametrize("num_features", [1, 5])
def test_a_network_of_the_wrong_width(shape, mask, num_features) -> None:
    net = nets.MLP(2, num_features) if mask else nets.ConvNet(2, num_features)
    layer = transforms.AffineCoupling(mask or transforms.Checkerboard(), net)
    refuses(lambda: layer(torch.zeros(2, *shape)), f"`net` must return 4 features .*{num_features}")


def test_events_of_too_few_dimensions() -> None:
    layer = transforms.affine_coupling((2, 3, 3))
    refuses(lambda: layer(torch.zeros(3, 3)), "`x` must have at least 3 dimensions")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: transforms.ActNorm(0), "`num_features` must be positive; got 0"),
        (lambda: transforms.ActNorm(2, event_dim=2), "`event_dim` must be one of 1, 3; got 2"),
        (lambda: transforms.ActNorm(2, event_dim=1).inv(torch.ones(3)), r"trailing shape \(2,\)"),
        (
            lambda: transforms.ActNorm(2, event_dim=1, context_shape=(1, 2, 2)),
            "`context_shape` must be that of a vector for vectors",
        ),
        (lambda: transforms.BatchNorm(2, momentum=2.0), "`momentum` must be at most 1; got 2"),
        (lambda: transforms.BatchNorm(2, epsilon=0.0), "`epsilon` must be positive; got 0"),
        (
            lambda: transforms.BatchNorm(2, event_dim=1).inv(torch.zeros(1, 2)),
            "`y` must have two values of each feature or more in training; got 1",
        ),
        (lambda: transforms.InvertibleLinear(3)(torch.ones(2, 2, 2)), "must have 3 features; got"),
        (
            lambda: transforms.InvertibleLinear(3, context_shape=(1, 2, 2)),
            "`context_shape` must be that of a vector",
        ),
        (lambda: transforms.Permute([0, 2]), "`permutation` must be the numbers 0 to n - 1"),
        (lambda: transforms.Permute([1, 0])(torch.ones(3, 2, 2)), "must have 2 features; got 3"),
        (lambda: transforms.Reverse(2), "`event_dim` must be one of 1, 3; got 2"),
        (lambda: transforms.DiagonalScale((3,))(torch.ones(2)), r"trailing shape \(3,\)"),
        (lambda: transforms.Glow(4, num_scales=2), "`num_scales` must be 1 for vectors; got 2"),
        (lambda: transforms.Glow(4, num_steps=0), "`num_steps` must be positive; got 0"),
        (
            lambda: transforms.Glow(4, num_classes=2, condition="prior", learned_prior=False),
            "`learned_prior` must be True if only the prior is conditional; got False",
        ),
        (
            lambda: transforms.RealNVP((1, 4, 4), batch_norm=True, dropout=0.1),
            "`batch_norm` must come with ReLU and without dropout",
        ),
        (
            lambda: models.glow((3, 5, 5), num_levels=256),
            "`height` must be divisible by 2 for 1 scales; got 5",
        ),
        (
            lambda: models.glow((1, 4, 4), num_classes=3, condition="prior", learned_prior=False),
            "`learned_prior` must be True",
        ),
    ],
)
def test_errors_name_argument_rule_and_value(call, message) -> None:
    refuses(call, message)

"""Code priors: names rather than numbers, a hierarchy as one distribution, Pyro programs."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from pyro_genmodels import nets, testing
from pyro_genmodels.distributions import HierarchicalVQPrior, VQPrior
from tests.cases import LABELS, code_hierarchy, gated_net, snail_net, vivid


def moved(net: nets.AutoregressiveNet) -> nets.AutoregressiveNet:
    vivid(testing.randomize_parameters(net.double())).eval()
    return net


def hierarchy(*shapes: tuple[int, ...], **options) -> HierarchicalVQPrior:
    net = moved(code_hierarchy(*shapes, **options))
    return HierarchicalVQPrior(net)


@pytest.mark.parametrize(
    "net",
    [
        nets.PixelCNNNet((2, 3), 5, hidden_channels=4, num_blocks=1, embedding_size=2),
        nets.GatedPixelCNNNet((2, 3), 5, hidden_channels=4, num_layers=1, embedding_size=2),
        nets.PixelSNAILNet((2, 3), 5, hidden_channels=4, num_blocks=1, embedding_size=2),
    ],
    ids=lambda net: type(net).__name__,
)
def test_codes_are_names(net: nets.AutoregressiveNet) -> None:
    """Renamed codes, with the looked-up vectors and the logits renamed alike, score the same."""
    moved(net)
    codes, names = torch.randint(5, (7, 2, 3)), torch.randperm(5)
    expected = VQPrior(net).log_prob(codes)
    with torch.no_grad():
        last = net.outputs[-1]
        rows = [net.levels.embed.weight, last.weight, last.bias]
        for row in rows:
            row[names] = row.clone()
    assert torch.allclose(VQPrior(net).log_prob(names[codes]), expected, atol=1e-12)


def test_codes_as_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="embedding_size"):
        VQPrior(gated_net(2, 3))


def test_maps_have_no_channel_axis_yet_are_images_of_one() -> None:
    flat, image = snail_net(3, 4, embedding_size=2), snail_net(1, 3, 4, embedding_size=2)
    image.load_state_dict(flat.state_dict())
    x = torch.randint(3, (5, 3, 4))
    assert torch.equal(flat(x), image(x[:, None])[:, 0])
    assert flat.row_length == image.row_length
    assert torch.equal(flat.order, image.order)


def test_draws_are_indices() -> None:
    assert VQPrior(snail_net(2, 2, embedding_size=2)).sample((3,)).dtype == torch.int64


@pytest.mark.parametrize(
    "shapes", [[(1, 2), (2, 2)], [(2, 1, 2), (2, 2, 2)], [(1, 1)] * 3], ids=str
)
def test_a_hierarchy_is_the_product_of_its_maps(shapes: list[tuple[int, ...]]) -> None:
    joint = hierarchy(*shapes)
    codes = torch.randint(3, (2, 5, *joint.event_shape))
    maps = joint.split(codes)
    assert [tuple(m.shape[2:]) for m in maps] == shapes
    assert torch.equal(joint.join(maps), codes)
    parts = [joint.map_prior(i, maps[:i]).log_prob(each) for i, each in enumerate(maps)]
    assert torch.allclose(joint.log_prob(codes), sum(parts, torch.zeros(())), atol=1e-12)


def test_a_finer_map_sees_those_above() -> None:
    joint = hierarchy((1, 2), (2, 2))
    _, bottom = joint.split(torch.zeros(6))
    tops = torch.cartesian_prod(torch.arange(3), torch.arange(3)).view(9, 1, 2)
    scored = joint.map_prior(1, [tops]).log_prob(bottom)
    assert len(scored.detach().round(decimals=8).unique()) == 9


def test_completion_keeps_the_maps_above() -> None:
    joint = hierarchy((1, 2), (2, 2))
    given = torch.tensor([[2.0, 1.0, 0, 0, 0, 0]])
    drawn = joint.sample((50,), given=given, num_given=2)
    assert (drawn[:, :2] == given[:, :2]).all()
    assert len(drawn[:, 2:].unique(dim=0)) > 5


def test_a_value_that_is_no_code_of_its_map_has_next_to_no_mass() -> None:
    """The top has three codes, the others two."""
    joint = hierarchy((1, 1), (2, 2), codes=2)
    top, *below = torch.arange(3.0), *[torch.zeros(3)] * 4
    no_code = torch.stack([top, *below[:-1], torch.full((3,), 2.0)], -1)
    codes = torch.stack([top, *below], -1)
    assert (joint.log_prob(no_code) < joint.log_prob(codes) - 50).all()
    assert (joint.sample((500,))[:, 1:] < 2).all()


def test_temperature_zero_is_greedy() -> None:
    joint = hierarchy((1, 2), (2, 2))
    assert len(joint.sample((20,), temperature=0.0).unique(dim=0)) == 1


def test_an_enumerated_label_beside_it() -> None:
    """A mixture over labels, summed out by Pyro, equals the log-sum-exp."""
    net = moved(code_hierarchy((1, 1), (2, 2), num_classes=3))
    codes = torch.randint(3, (4, 5))

    def model(codes: Tensor) -> None:
        with pyro.plate("data", len(codes)):
            label = pyro.sample(
                "label", dist.Categorical(torch.ones(3).double()), infer={"enumerate": "parallel"}
            )
            pyro.sample("codes", HierarchicalVQPrior(net, label), obs=codes)

    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(model, lambda codes: None, codes)
    each = HierarchicalVQPrior(net, torch.arange(3)[:, None]).log_prob(codes)
    exact = (each.logsumexp(0) - math.log(3)).sum()
    assert abs(loss + float(exact)) < 1e-9


def test_parts_that_do_not_fit_are_refused() -> None:
    top, below = gated_net(1, 2, embedding_size=2), gated_net(2, 2, embedding_size=2)
    other = nets.CodeConditioner([(1, 2)], 4, (2, 2), features=4)
    with pytest.raises(ValueError, match="`conditioners` must take"):
        nets.CodeHierarchyNet([top, below], [None, other])
    fitting = nets.CodeConditioner([(1, 2)], 3, (2, 2), features=4)
    with pytest.raises(ValueError, match=r"take the features \(4, 2, 2\)"):
        nets.CodeHierarchyNet([top, below], [None, fitting])
    classes = [gated_net(1, 2, embedding_size=2, num_classes=n) for n in (2, 3)]
    with pytest.raises(ValueError, match="one and the same context"):
        nets.CodeHierarchyNet(classes)
    with pytest.raises(ValueError, match="at least one"):
        nets.CodeHierarchyNet([])
    with pytest.raises(ValueError, match="be 1 maps"):
        fitting([])
    with pytest.raises(ValueError, match="`net` must be of type CodeHierarchyNet"):
        HierarchicalVQPrior(top)
    with pytest.raises(ValueError, match="`context`"):
        HierarchicalVQPrior(code_hierarchy((1, 1), (2, 2)), LABELS)

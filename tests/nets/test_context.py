"""Contexts: kinds, batch shapes, checks."""

from typing import Any

import pytest
import torch

from pyro_genmodels._batching import over_batch
from pyro_genmodels.nets import MLP, ContextEmbedding, join_context, split_context

BOTH: dict[str, Any] = {"num_classes": 4, "context_shape": (3,)}
TWO_LABELS = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
@pytest.mark.parametrize(
    ("options", "event", "rank", "features"),
    [
        ({"num_classes": 4}, (), 0, (5,)),
        ({"context_shape": (3,)}, (3,), 1, (5,)),
        ({"context_shape": (3, 4, 6)}, (3, 4, 6), 3, (5, 4, 6)),
        ({"num_classes": 4, "context_shape": (3,)}, (4,), 1, (5,)),
        ({"num_classes": 4, "context_shape": (3, 4, 6)}, (4, 4, 6), 3, (5, 4, 6)),
    ],
)
def test_kinds_and_batch_shapes(batch, options, event, rank, features):
    embedding = ContextEmbedding(5, **options)
    label = not event
    context = torch.zeros(batch + event, dtype=torch.long if label else torch.float32)
    assert embedding.event_dim == rank
    assert embedding(context).shape == batch + features


def test_without_a_kind_there_is_no_context():
    embedding = ContextEmbedding(5)
    assert embedding.event_dim is None
    assert embedding(None) is None
    with pytest.raises(ValueError, match="`context` must be None"):
        embedding(torch.zeros(3))


def test_maps_are_resampled_by_averaging():
    embedding = ContextEmbedding(5, context_shape=(2, 4, 4))
    context = torch.randn(3, 2, 4, 4)
    small = embedding(context, size=(2, 2))
    torch.testing.assert_close(small, torch.nn.functional.avg_pool2d(embedding(context), 2))
    assert embedding(context, size=(5, 7)).shape == (3, 5, 5, 7)


@pytest.mark.parametrize(
    ("options", "context", "message"),
    [
        ({"num_classes": 4}, None, "labels from 0 to 3 of an integer dtype; got None"),
        ({"num_classes": 4}, torch.tensor([4]), "got values from 4 to 4"),
        ({"num_classes": 4}, torch.tensor([-1]), "got values from -1 to -1"),
        ({"num_classes": 4}, torch.tensor([1.0]), "got dtype torch.float32"),
        ({"context_shape": (3,)}, torch.zeros(2), "trailing shape \\(3,\\); got shape \\(2,\\)"),
        ({"context_shape": (3, 4, 4)}, torch.zeros(3, 4), "trailing shape \\(3, 4, 4\\)"),
        (BOTH, None, "be a label and features as one, with trailing shape \\(4,\\)"),
        (BOTH, torch.tensor([1, 0]), "trailing shape \\(4,\\); got shape \\(2,\\)"),
        (BOTH, torch.tensor([4.0, 0, 0, 0]), "begin with labels, whole numbers from 0 to 3; got 4"),
        (BOTH, torch.tensor([-1.0, 0, 0, 0]), "begin with labels, .* got -1"),
        (BOTH, torch.tensor([0.5, 0, 0, 0]), "begin with labels, .* got 0.5"),
        (BOTH, torch.tensor([torch.nan, 0, 0, 0]), "begin with labels, .* got nan"),
        (BOTH | {"context_shape": (1, 1, 2)}, TWO_LABELS, "one label all over its first channel"),
    ],
)
def test_contexts_of_another_kind_are_named(options, context, message):
    with pytest.raises(ValueError, match=message):
        ContextEmbedding(5, **options)(context)


def test_constructor_errors():
    with pytest.raises(ValueError, match="`num_classes` must be positive"):
        ContextEmbedding(5, num_classes=0)
    with pytest.raises(ValueError, match="`context_shape` must be positive sizes"):
        ContextEmbedding(5, context_shape=(3, 4))


def test_labels_of_any_integer_dtype_and_vmap():
    embedding = ContextEmbedding(5, num_classes=4)
    labels = torch.arange(4)
    expected = embedding(labels)
    assert torch.equal(embedding(labels.to(torch.uint8)), expected)
    assert torch.equal(torch.vmap(embedding)(labels), expected)


def test_over_batch_passes_absent_arguments_through():
    assert over_batch(lambda x, y: x, (torch.zeros(2, 3, 4), 1), (None, 3)).shape == (2, 3, 4)
    with pytest.raises(ValueError, match="batch shapes must broadcast; got \\(2,\\) and \\(3,\\)"):
        over_batch(lambda x, y: x + y, (torch.zeros(2, 1), 1), (torch.zeros(3, 1), 1))


@pytest.mark.parametrize("event", [(3,), (2, 5), (2, 3, 4)])
@pytest.mark.parametrize(
    ("of_labels", "of_features"), [((), ()), ((4,), (4,)), ((), (4,)), ((2, 1), (4,)), ((0,), ())]
)
def test_a_label_and_features_are_joined_and_split(event, of_labels, of_features):
    labels = torch.randint(7, of_labels)
    features = torch.randn(of_features + event)
    batch = torch.broadcast_shapes(of_labels, of_features)
    joint = join_context(labels, features, len(event))
    assert joint.shape == (*batch, 1 + event[0], *event[1:])
    found, others = split_context(joint, len(event))
    assert found.dtype == torch.int64
    assert torch.equal(found, labels.expand(batch))
    assert torch.equal(others, features.expand(batch + event))


def test_labels_beside_features_in_half_precision_stay_exact():
    labels = torch.tensor([257, 4095])
    joint = join_context(labels, torch.zeros(2, 1, dtype=torch.bfloat16), 1)
    assert joint.dtype == torch.float32
    assert torch.equal(split_context(joint, 1)[0], labels)
    assert join_context(labels, torch.zeros(2, 1, dtype=torch.float64), 1).dtype == torch.float64


@pytest.mark.parametrize(
    ("labels", "features", "rank", "message"),
    [
        (torch.zeros(2), torch.zeros(2, 3), 1, "`labels` must be of an integer dtype"),
        (torch.tensor([1]), torch.zeros(3), 2, "`features` must have 2 dimensions or more"),
        (torch.tensor([1]), torch.zeros(3), 0, "`event_dim` must be the rank of the features"),
        (torch.tensor([1, 2]), torch.zeros(3, 1), 1, "batch shapes must broadcast"),
    ],
)
def test_what_cannot_be_joined_is_named(labels, features, rank, message):
    with pytest.raises(ValueError, match=message):
        join_context(labels, features, rank)


@pytest.mark.parametrize("event", [(3,), (2, 4), (2, 3, 4)])
def test_label_and_features_add_up(event):
    embedding = ContextEmbedding(5, num_classes=4, context_shape=event, ranks=(1, 2, 3))
    assert {name for name, _ in embedding.named_parameters()} == {
        *("embed.weight", "embed.bias", "embed_labels.weight")
    }
    labels, features = torch.tensor([3, 1]), torch.randn(2, *event)
    joint = join_context(labels, features, len(event))
    alone = ContextEmbedding(5, context_shape=event, ranks=(1, 2, 3))
    alone.load_state_dict(embedding.state_dict(), strict=False)
    row = embedding.embed_labels(labels).reshape(2, 5, *[1] * (len(event) - 1))
    torch.testing.assert_close(embedding(joint), alone(features) + row)
    torch.testing.assert_close(torch.vmap(embedding)(joint), embedding(joint))


def test_a_map_that_is_flattened_keeps_its_label():
    net = MLP(2, 3, hidden=(8,), num_classes=4, context_shape=(2, 2, 2))
    labels, maps = torch.tensor([3, 1]), torch.randn(2, 2, 2, 2)
    joint = join_context(labels, maps, 3)
    flat = MLP(2, 3, hidden=(8,), num_classes=4, context_shape=(8,))
    flat.load_state_dict(net.state_dict())
    x = torch.randn(2, 2)
    torch.testing.assert_close(net(x, joint), flat(x, join_context(labels, maps.flatten(1), 1)))
    joint[0, 0, 1, 1] = 1
    with pytest.raises(ValueError, match="one label all over its first channel"):
        net(x, joint)

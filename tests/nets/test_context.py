"""Contexts: kinds, batch shapes, checks."""

import pytest
import torch

from pyro_genmodels._batching import over_batch
from pyro_genmodels.nets import ContextEmbedding


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
@pytest.mark.parametrize(
    ("options", "event", "rank", "features"),
    [
        ({"num_classes": 4}, (), 0, (5,)),
        ({"context_shape": (3,)}, (3,), 1, (5,)),
        ({"context_shape": (3, 4, 6)}, (3, 4, 6), 3, (5, 4, 6)),
    ],
)
def test_kinds_and_batch_shapes(batch, options, event, rank, features):
    embedding = ContextEmbedding(5, **options)
    label = options.get("num_classes") is not None
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
    ],
)
def test_contexts_of_another_kind_are_named(options, context, message):
    with pytest.raises(ValueError, match=message):
        ContextEmbedding(5, **options)(context)


def test_constructor_errors():
    with pytest.raises(ValueError, match="`context_shape` must be None beside num_classes"):
        ContextEmbedding(5, num_classes=2, context_shape=(3,))
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

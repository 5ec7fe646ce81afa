"""MLP: shapes, contexts, options."""

import pytest
import torch

from pyro_genmodels.nets import MLP
from pyro_genmodels.nets.layers.mlp import ACTIVATIONS


@pytest.mark.parametrize("hidden", [(), (4,), (4, 5)])
@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
def test_shapes(hidden, batch):
    assert MLP(3, 2, hidden=hidden)(torch.zeros(*batch, 3)).shape == (*batch, 2)


@pytest.mark.parametrize(
    ("options", "context"),
    [
        ({"num_classes": 4}, torch.tensor([0, 3])),
        ({"context_shape": (3,)}, torch.randn(2, 3)),
        ({"context_shape": (2, 3, 4)}, torch.randn(2, 2, 3, 4)),
    ],
)
@pytest.mark.parametrize("hidden", [(), (4,)])
def test_contexts_broadcast_and_matter(options, context, hidden):
    mlp = MLP(3, 2, hidden=hidden, activation="tanh", **options)
    x = torch.randn(5, 1, 3)
    y = mlp(x, context)
    assert y.shape == (5, 2, 2)
    assert not torch.allclose(y[:, 0], y[:, 1])
    torch.testing.assert_close(y[:, 1], mlp(x[:, 0], context[1]))


def test_zero_init_dropout_and_activations():
    assert MLP(3, 2, zero_init=True)(torch.randn(4, 3)).abs().max() == 0
    mlp, x = MLP(3, 2, dropout=0.5), torch.randn(4, 3)
    assert not torch.equal(mlp(x), mlp(x))
    assert torch.equal(mlp.eval()(x), mlp(x))
    for name in ACTIVATIONS:
        assert MLP(3, 2, activation=name)(x).isfinite().all()


@pytest.mark.parametrize("widths", [(0, 1, (1,)), (1, 0, (1,)), (1, 1, (0,))])
def test_widths_must_be_positive(widths):
    with pytest.raises(ValueError, match="must be positive; got 0"):
        MLP(widths[0], widths[1], hidden=widths[2])

"""Networks from image to image: sizes, contexts, receptive field, options."""

import pytest
import torch

from pyro_genmodels.nets import ConvNet, ResNet

MAKERS = {
    "conv": lambda **options: ConvNet(2, 3, hidden=(4, 5), activation="tanh", **options),
    "res": lambda **options: ResNet(2, 3, hidden_channels=4, activation="tanh", **options),
}


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
@pytest.mark.parametrize("size", [(1, 1), (5, 4)])
def test_sizes_are_kept(make, batch, size):
    assert make()(torch.zeros(*batch, 2, *size)).shape == (*batch, 3, *size)


@pytest.mark.parametrize(
    ("options", "context"),
    [
        ({"num_classes": 4}, torch.tensor([0, 3])),
        ({"context_shape": (3,)}, torch.randn(2, 3)),
        ({"context_shape": (2, 5, 4)}, torch.randn(2, 2, 5, 4)),
        ({"context_shape": (1, 2, 2)}, torch.randn(2, 1, 2, 2)),
    ],
)
def test_contexts_broadcast_and_matter(make, options, context):
    net, x = make(**options), torch.randn(6, 1, 2, 5, 4)
    y = net(x, context)
    assert y.shape == (6, 2, 3, 5, 4)
    assert not torch.allclose(y[:, 0], y[:, 1])
    torch.testing.assert_close(y[:, 1], net(x[:, 0], context[1]), rtol=1e-4, atol=1e-5)


def test_zero_init_and_dropout(make):
    x = torch.randn(4, 2, 5, 5)
    assert make(zero_init=True)(x).abs().max() == 0
    net = make(dropout=0.5)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


def test_every_parameter_gets_a_gradient_once_moved(make):
    net = make(num_classes=4)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    net(torch.randn(4, 2, 5, 5), torch.arange(4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_errors():
    with pytest.raises(ValueError, match="`hidden` must be positive sizes"):
        ConvNet(1, 1, hidden=())
    with pytest.raises(ValueError, match="`num_blocks` must not be negative; got -1"):
        ResNet(1, 1, num_blocks=-1)
    with pytest.raises(ValueError, match="`kernel_size` must be odd and positive; got 4"):
        ResNet(1, 1, kernel_size=4)
    with pytest.raises(ValueError, match="`out_channels` must be positive; got 0"):
        ResNet(1, 0)

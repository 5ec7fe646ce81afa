"""Laws of the encoders and decoders: any size, any leading dimensions, every kind of context."""

from __future__ import annotations

import pytest
import torch

from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.nets import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder

SIZES = [(1, 1, 1), (1, 8, 8), (2, 7, 5), (3, 32, 32)]
CONTEXTS = {
    "none": ({}, None),
    "labels": ({"num_classes": 4}, torch.tensor([1, 3, 0])),
    "vectors": ({"context_shape": (6,)}, torch.randn(3, 6)),
    "maps": ({"context_shape": (2, 4, 3)}, torch.randn(3, 2, 4, 3)),
}


def networks(size: tuple[int, ...], **options):
    conv = {"num_blocks": 1, **options}
    return {
        "mlp": (
            MLPEncoder(size, 5, hidden=(9,), **options),
            MLPDecoder(4, size, hidden=(9,), **options),
        ),
        "conv": (
            ConvEncoder(size, 5, channels=(4, 6, 8), **conv),
            ConvDecoder(4, size, channels=(8, 6, 4), **conv),
        ),
    }


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("size", SIZES)
def test_shapes_and_gradients(size: tuple[int, ...], kind: str, context: str) -> None:
    options, value = CONTEXTS[context]
    encoder, decoder = networks(size, **options)[kind]
    x, z = torch.randn(2, 3, *size), torch.randn(2, 3, 4)
    features, image = encoder(x, value), decoder(z, value)
    assert features.shape == (2, 3, 5)
    assert image.shape == (2, 3, *size)
    (features.square().sum() + image.square().sum()).backward()
    for network in (encoder, decoder):
        assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_leading_dimensions_are_independent(kind: str, context: str) -> None:
    """Each example's output is what it is alone, whatever stands beside it."""
    options, value = CONTEXTS[context]
    encoder, decoder = (net.double() for net in networks((2, 7, 5), **options)[kind])
    value = value.double() if value is not None and value.is_floating_point() else value
    x, z = torch.randn(2, 3, 2, 7, 5).double(), torch.randn(2, 3, 4).double()
    for network, data in ((encoder, x), (decoder, z)):
        together = network(data, value)
        alone = network(data[1, 2], None if value is None else value[2])
        torch.testing.assert_close(together[1, 2], alone)


@pytest.mark.parametrize("context", ["labels", "vectors", "maps"])
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_context_batch_broadcasts_and_matters(kind: str, context: str) -> None:
    options, value = CONTEXTS[context]
    encoder, decoder = networks((1, 8, 8), **options)[kind]
    for network, data in ((encoder, torch.randn(1, 8, 8)), (decoder, torch.randn(4))):
        outputs = network(data, value)
        assert outputs.shape[0] == 3
        assert not torch.allclose(outputs[0], outputs[1])


def test_odd_sizes_lose_no_pixel() -> None:
    encoder = ConvEncoder((1, 7, 5), 3, channels=(2, 2, 2)).double()
    x = torch.randn(1, 7, 5, dtype=torch.double, requires_grad=True)
    encoder(x).sum().backward()
    assert (x.grad != 0).all()


def test_no_hidden_layer_is_linear() -> None:
    encoder = MLPEncoder((3,), 2, hidden=()).double()
    a, b = torch.randn(2, 3, dtype=torch.double)
    torch.testing.assert_close(encoder(a) + encoder(b), encoder(a + b) + encoder(0 * a))


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_configuration_rebuilds(kind: str) -> None:
    for network in networks((2, 7, 5), num_classes=3)[kind]:
        again = build(configuration(network))
        again.load_state_dict(network.state_dict())


def test_bad_arguments_are_errors() -> None:
    with pytest.raises(ValueError, match=r"`event_shape` must be positive sizes \(C, H, W\)"):
        ConvEncoder((5,), 3)
    with pytest.raises(ValueError, match="`channels` must name at least one"):
        ConvDecoder(3, (1, 8, 8), channels=())
    with pytest.raises(ValueError, match="context"):
        ConvEncoder((1, 8, 8), 3)(torch.zeros(1, 8, 8), torch.tensor(1))

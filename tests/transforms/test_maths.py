"""Inverse and log-determinant against autograd's full Jacobian."""

import pytest
import torch

from pyro_genmodels import nets, transforms
from tests.transforms.flows import CONTEXTS, FLOWS, make, randomized


def jacobian_log_det(function, x):
    jacobian = torch.func.jacrev(function)(x)
    size = x.numel()
    return torch.linalg.slogdet(jacobian.reshape(size, size))[1]


@pytest.mark.parametrize("name", FLOWS)
def test_log_det_is_that_of_the_full_jacobian(name):
    flow, x = make(name)
    y, log_det = flow.forward_and_log_det(x)
    expected = jacobian_log_det(lambda v: flow.forward_and_log_det(v)[0], x[1, 2])
    bound = 1e-9 * (1 + expected.abs())
    assert (log_det[1, 2] - expected).abs() <= bound
    back = flow.inverse_and_log_det(y)[1]
    assert back.shape == log_det.shape == (2, 3)
    assert ((back + log_det).abs() <= 1e-9 * (1 + log_det.abs())).all()


@pytest.mark.parametrize(
    "name", [n for n in FLOWS if n.startswith(("affine", "real_nvp", "spline", "glow"))]
)
def test_randomised_maps_have_a_log_det_to_get_wrong(name):
    flow, x = make(name)
    assert flow.forward_and_log_det(x)[1].abs().max() > 0.05


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
@pytest.mark.parametrize("name", FLOWS)
def test_round_trips_for_any_batch_shape(name, batch):
    flow, _ = make(name)
    x = torch.randn(*batch, *FLOWS[name][0], dtype=torch.float64)
    y = flow(x)
    assert y.shape == flow.forward_shape(x.shape)
    assert x.shape == flow.inverse_shape(y.shape)
    back = flow.inv(y.clone())
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(flow(back.clone()), y, rtol=1e-9, atol=1e-9)
    assert flow.log_abs_det_jacobian(x, y).shape == batch


@pytest.mark.parametrize("name", FLOWS)
def test_single_precision_round_trip(name):
    flow, x = make(name, torch.float32)
    torch.testing.assert_close(flow.inv(flow(x).clone()), x, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", FLOWS)
def test_vmap_equals_a_batch(name):
    flow, x = make(name)
    y, log_det = flow.forward_and_log_det(x)

    def both(v):
        w = flow(v)
        return w, flow.log_abs_det_jacobian(v, w)

    mapped_y, mapped_log_det = torch.vmap(torch.vmap(both))(x)
    torch.testing.assert_close(mapped_y, y)
    torch.testing.assert_close(mapped_log_det, log_det)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("shape", [(3,), (1, 4, 4), (2, 3, 5)])
def test_conditional_log_det(shape, context):
    options, make_context = CONTEXTS[context]
    twin = randomized(transforms.ConditionalRealNVP(shape, width=4, **options)).double()
    first, second = make_context((2,))
    x = torch.randn(shape, dtype=torch.float64)
    flow = twin.condition(first)
    expected = jacobian_log_det(flow, x)
    assert (flow.log_abs_det_jacobian(x, flow(x)) - expected).abs() <= 1e-9 * (1 + expected.abs())
    torch.testing.assert_close(flow.inv(flow(x).clone()), x)
    other = make_context((1,))[0] if context == "labels" and first == second else second
    if context != "labels" or other != first:
        assert not torch.allclose(twin.condition(other)(x), flow(x))


def test_affine_coupling_is_its_equation():
    flow, x = make("affine half 5")
    s, t = flow.net(x[..., :2]).split(3, dim=-1)
    s = flow.rescale * torch.tanh(s)
    expected = torch.cat([x[..., :2], x[..., 2:] * torch.exp(s) + t], dim=-1)
    torch.testing.assert_close(flow.inv(x), expected)
    torch.testing.assert_close(flow.inv.log_abs_det_jacobian(x, expected), s.sum(-1))


@pytest.mark.parametrize("scale", ["tanh", "exp", "sigmoid"])
def test_scales_of_affine_couplings(scale):
    net = nets.MLP(1, 2, hidden=(4,))
    flow = randomized(transforms.AffineCoupling(transforms.HalfMask(), net, scale=scale)).double()
    y = torch.randn(5, 2, dtype=torch.float64)
    h, t = net(y[:, :1]).unbind(-1)
    expected = {"tanh": lambda: torch.exp(flow.rescale * torch.tanh(h)), "exp": h.exp}
    factor = expected.get(scale, lambda: torch.sigmoid(h + 2) + 1e-3)()
    torch.testing.assert_close(flow.inv(y)[:, 1], y[:, 1] * factor + t)


def test_alternating_squeeze_puts_opposite_corners_first():
    image = torch.arange(8.0).reshape(2, 2, 2)
    squeezed = transforms.Squeeze(alternating=True)(image).flatten()
    assert squeezed.tolist() == [0, 4, 3, 7, 1, 5, 2, 6]
    assert transforms.Squeeze()(image).flatten().tolist() == list(range(8))


def test_logit_maps_noise_to_its_codomain_and_data_to_bounded_logits():
    logit = transforms.Logit(1, margin=0.05)
    assert logit.codomain.check(logit(torch.randn(100, 4) * 5)).all()
    ends = logit.inv(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(ends, torch.logit(torch.tensor([0.05, 0.95])))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3,)])
def test_real_nvp_starts_as_the_identity_and_keeps_sizes(shape):
    flow = transforms.RealNVP(shape)
    x = torch.randn(2, *shape)
    torch.testing.assert_close(flow(x), x)
    assert flow.forward_shape((2, *shape)) == (2, *shape)


def test_a_factored_out_checkerboard_skips_the_later_scales():
    flow = randomized(transforms.RealNVP((1, 4, 4), width=4, num_couplings=1))
    later = flow.flow.parts[0]
    x = torch.randn(1, 4, 4)
    changed = (later.forward_and_log_det(x)[0] != x)[0]
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    assert (changed == ((rows + columns) % 2 == 0)).all()

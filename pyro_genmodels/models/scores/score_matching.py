"""Score matching: losses of networks that estimate the gradient of a log-density."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator

import torch
from pyro.poutine.util import is_validation_enabled
from torch import nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check, check_finite, check_positive, integers_checked
from pyro_genmodels._typing import Float, Num, Tensor
from pyro_genmodels.nets.layers import check_finite_context
from pyro_genmodels.nets.scores import differentiable, outside_inference


class ScoreMatchingLoss(nn.Module, Abstract):
    r"""Base of losses whose mean is the Fisher divergence of a score up to a constant.

    The Fisher divergence is half the mean squared distance
    :math:`\tfrac12 E_{p(x)} |s(x) - \nabla_x \log p(x)|^2` between a score network :math:`s` and
    the data's score. The constant does not depend on the network, so gradients agree; it does
    depend on the data and on the loss, so values of different losses are not comparable.

    Args:
        score: Called as ``score(x)`` or ``score(x, context)``, it returns a value of the shape of
            ``x``: a network, or an :class:`~pyro_genmodels.nets.EnergyGradient`.
        event_dim: Number of dimensions of one example: 1 for vectors, 3 for images.

    Raises:
        ValueError: If ``event_dim`` is not positive.
    """

    @integers_checked
    def __init__(self, score: Callable[..., Tensor], *, event_dim: int = 1) -> None:
        super().__init__()
        check_positive(event_dim=event_dim)
        self.score, self.event_dim = score, event_dim

    def forward(
        self, x: Num[Tensor, "*batch_event"], context: Num[Tensor, "*context"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """Return the loss of each example, in squared nats per squared unit of ``x``.

        Gradients flow to the parameters of the score, and to ``x`` if it requires them; they can
        be differentiated again.

        Args:
            x: Data ``(*batch, *event)``.
            context: Labels or features, if the score is conditional. Its batch shape expands to
                that of ``x``.

        Raises:
            ValueError: If ``x`` has too few dimensions or an integer dtype, or if the score has
                another shape than ``x``; under Pyro's validation, if ``x`` or features are not
                finite.
        """
        rule = f"have at least {self.event_dim} dimensions, those of one example"
        check(x.dim() >= self.event_dim, "x", rule, f"shape {tuple(x.shape)}")
        check(x.is_floating_point(), "x", "be of a floating dtype", x.dtype)
        if is_validation_enabled():
            check_finite("x", x)
            check_finite_context(context)
        return self._loss(x, context)

    @abstractmethod
    def _loss(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Return the loss of each example."""

    def _score(self, x: Tensor, context: Tensor | None) -> Tensor:
        score = self.score(x) if context is None else self.score(x, context)
        rule = f"return values of its input's shape, {tuple(x.shape)}"
        check(score.shape == x.shape, "score", rule, f"shape {tuple(score.shape)}")
        return score

    def _half_squared_norm(self, vectors: Tensor) -> Tensor:
        return 0.5 * self._sum_event(vectors.square())

    def _sum_event(self, values: Tensor) -> Tensor:
        return values.flatten(-self.event_dim).sum(-1)


class DenoisingScoreMatching(ScoreMatchingLoss):
    r"""Denoising score matching: the score of the data with Gaussian noise added.

    .. math:: \tfrac12 \left| s(x + \sigma \epsilon) + \epsilon / \sigma \right|^2,
        \qquad \epsilon \sim N(0, I)

    Its mean is the Fisher divergence to the *noised* distribution :math:`p_\sigma = p * N(0,
    \sigma^2 I)`, not to the data's, plus the constant :math:`D / (2 \sigma^2) - \tfrac12 E |\nabla
    \log p_\sigma|^2`, in :math:`D` dimensions. The smaller :math:`\sigma` is, the less the
    distribution differs from the data's, and the larger the variance of the gradient,
    :math:`\sim 1 / \sigma^2`.

    Args:
        score: Called as ``score(x)`` or ``score(x, context)``, it returns a value of the shape of
            ``x``.
        noise_scale: Standard deviation :math:`\sigma` of the noise, in units of ``x``.
        event_dim: Number of dimensions of one example: 1 for vectors, 3 for images.

    Raises:
        ValueError: If ``noise_scale`` or ``event_dim`` is not positive.

    References:
        Vincent (2011), A connection between score matching and denoising autoencoders, eq. 10.

    Example:
        >>> from pyro_genmodels.nets import MLP
        >>> loss = DenoisingScoreMatching(MLP(2, 2), 0.1)
        >>> loss(torch.randn(5, 2)).shape
        torch.Size([5])
    """

    @integers_checked
    def __init__(
        self, score: Callable[..., Tensor], noise_scale: float, *, event_dim: int = 1
    ) -> None:
        super().__init__(score, event_dim=event_dim)
        check_positive(noise_scale=noise_scale)
        self.noise_scale = noise_scale

    def _loss(self, x: Tensor, context: Tensor | None) -> Tensor:
        noise = torch.randn_like(x)
        score = self._score(x + self.noise_scale * noise, context)
        return self._half_squared_norm(score + noise / self.noise_scale)


class _DerivativeScoreMatching(ScoreMatchingLoss, Abstract):
    """Losses that replace the unknown score of the data by a derivative of the network's.

    Partial integration turns :math:`-E[s(x) . grad log p(x)]` into the mean trace of the Jacobian
    of the score, which is a mean or a sum of quadratic forms of it.
    """

    def _loss(self, x: Tensor, context: Tensor | None) -> Tensor:
        create_graph = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            x, context = differentiable(x), outside_inference(context)
            score = self._score(x, context)
            trace = torch.zeros_like(score)
            for direction in self._directions(x):
                # One backward pass per direction: half as fast as vmap over them at 10 to 50
                # dimensions, but it takes any network, also a checkpointed one.
                trace = trace + direction * _vector_jacobian(score, x, direction, create_graph)
        loss = self._half_squared_norm(score) + self._sum_event(trace)
        return loss if create_graph else loss.detach()

    @abstractmethod
    def _directions(self, x: Tensor) -> Iterator[Tensor]:
        """Yield directions, broadcastable to ``x``, whose quadratic forms sum to the trace."""


def _vector_jacobian(score: Tensor, x: Tensor, vector: Tensor, create_graph: bool) -> Tensor:
    if not score.requires_grad:  # a constant
        return torch.zeros_like(x)
    (product,) = torch.autograd.grad(
        (score * vector).sum(),
        x,
        create_graph=create_graph,
        retain_graph=True,
        materialize_grads=True,
    )
    return product


class SlicedScoreMatching(_DerivativeScoreMatching):
    r"""Sliced score matching: exact score matching with a random estimate of the trace.

    .. math:: \tfrac12 |s(x)|^2 + \frac1M \sum_{m=1}^M v_m^T \frac{\partial s}{\partial x} v_m

    with directions :math:`v_m` whose elements are -1 or 1 with equal probability. This is the
    variance-reduced form, whose squared norm is exact, not estimated from the directions. Its mean
    is the Fisher divergence to the data's distribution minus :math:`\tfrac12 E |\nabla \log p|^2`,
    like that of :class:`ExactScoreMatching`, at a cost that does not grow with the dimension: one
    backward pass through the score per direction. The data need a density that is differentiable,
    and vanishes at the ends of its support.

    Args:
        score: Called as ``score(x)`` or ``score(x, context)``, it returns a value of the shape of
            ``x``. Examples must not depend on each other, as with batch normalization in training.
        num_projections: Number :math:`M` of random directions per example.
        event_dim: Number of dimensions of one example: 1 for vectors, 3 for images.

    Raises:
        ValueError: If ``num_projections`` or ``event_dim`` is not positive.

    References:
        Song et al. (2019), Sliced score matching, eq. 8. https://arxiv.org/abs/1905.07088

    Example:
        >>> from pyro_genmodels.nets import MLP
        >>> loss = SlicedScoreMatching(MLP(2, 2), num_projections=3)
        >>> loss(torch.randn(5, 2)).shape
        torch.Size([5])
    """

    @integers_checked
    def __init__(
        self, score: Callable[..., Tensor], *, num_projections: int = 1, event_dim: int = 1
    ) -> None:
        super().__init__(score, event_dim=event_dim)
        check_positive(num_projections=num_projections)
        self.num_projections = num_projections

    def _directions(self, x: Tensor) -> Iterator[Tensor]:
        for _ in range(self.num_projections):
            signs = 2 * torch.randint_like(x, 2) - 1
            yield signs / self.num_projections**0.5


class ExactScoreMatching(_DerivativeScoreMatching):
    r"""Implicit score matching, with the exact trace of the score's Jacobian.

    .. math:: \tfrac12 |s(x)|^2 + \operatorname{tr} \frac{\partial s}{\partial x}

    Its mean is the Fisher divergence to the data's distribution minus :math:`\tfrac12 E |\nabla
    \log p|^2`. It takes a backward pass through the score per dimension of the data, so that it is
    for up to about a hundred; :class:`SlicedScoreMatching` estimates it for more. The data need a
    density that is differentiable, and vanishes at the ends of its support.

    Args:
        score: Called as ``score(x)`` or ``score(x, context)``, it returns a value of the shape of
            ``x``. Examples must not depend on each other, as with batch normalization in training.
        event_dim: Number of dimensions of one example: 1 for vectors, 3 for images.

    Raises:
        ValueError: If ``event_dim`` is not positive.

    References:
        Hyvärinen (2005), Estimation of non-normalized statistical models by score matching, th. 1.

    Example:
        >>> loss = ExactScoreMatching(lambda x: -x)  # of a standard normal distribution
        >>> loss(torch.tensor([[0.0, 0.0], [3.0, 1.0]])).tolist()
        [-2.0, 3.0]
    """

    def _directions(self, x: Tensor) -> Iterator[Tensor]:
        event = x.shape[x.dim() - self.event_dim :]
        for row in torch.eye(event.numel(), dtype=x.dtype, device=x.device):
            yield row.reshape(event)

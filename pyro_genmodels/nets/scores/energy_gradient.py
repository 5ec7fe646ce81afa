"""Score networks that are the gradient of a scalar energy."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pyro_genmodels._batching import broadcast_batch
from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import Float, Num
from pyro_genmodels.nets.scores.gradients import differentiable, outside_inference


class EnergyGradient(Configured, nn.Module):
    r"""Score of an energy-based model: the negative gradient of a network's scalar output.

    The density is :math:`p(x) \propto e^{-E(x)}`, where the energy :math:`E`, in nats, is the sum
    of the network's outputs for an example. Its score :math:`\nabla_x \log p(x) = -\nabla_x E(x)`
    does not depend on the unknown normalizing constant. Unlike the output of an arbitrary network
    it is a gradient field, so that a Metropolis test by :meth:`energy` is possible.

    The network needs a smooth activation, such as ``"silu"`` or ``"softplus"``: with ReLU the score
    is piecewise constant. An additive constant of the energy, such as the bias of the last layer,
    does not change the score and gets no gradient from it.

    Args:
        net: Network that maps ``(*batch, *event)`` to ``(*batch, *output)``.
        event_dim: Number of dimensions of one example: 1 for vectors, 3 for images.

    Raises:
        ValueError: If ``event_dim`` is not positive; when called, if the network's output does not
            have the batch shape of its input.

    References:
        Song & Kingma (2021), How to train your energy-based models.
        https://arxiv.org/abs/2101.03288

    Example:
        >>> from pyro_genmodels.nets import MLP
        >>> score = EnergyGradient(MLP(2, 1, hidden=(16,), activation="silu"))
        >>> x = torch.randn(5, 2)
        >>> score(x).shape, score.energy(x).shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(self, net: nn.Module, *, event_dim: int = 1) -> None:
        super().__init__()
        check_positive(event_dim=event_dim)
        self.net, self.event_dim = net, event_dim

    @property
    def context_event_dim(self) -> int | None:
        """Number of dimensions of one context of the network; ``None`` if it takes none."""
        return getattr(self.net, "context_event_dim", None)

    def forward(
        self, x: Float[Tensor, "*batch_event"], context: Num[Tensor, "*context"] | None = None
    ) -> Float[Tensor, "*output"]:
        """Return the score, also where gradients are switched off; it can be differentiated again.

        Args:
            x: Data ``(*batch, *event)``.
            context: Labels or features, if the network is conditional. Its batch shape broadcasts
                against that of ``x``.

        Returns:
            ``(*batch, *event)``, in nats per unit of ``x``.
        """
        create_graph = torch.is_grad_enabled()
        x = self._for_each_context(x, context)
        with torch.inference_mode(False), torch.enable_grad():
            x, context = differentiable(x), outside_inference(context)
            energy = self.energy(x, context)
            (gradient,) = torch.autograd.grad(energy.sum(), x, create_graph=create_graph)
        return -gradient

    def energy(
        self, x: Float[Tensor, "*batch_event"], context: Num[Tensor, "*context"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """Return the energy in nats, the negative log-density up to a constant.

        Args:
            x: Data ``(*batch, *event)``.
            context: Labels or features, if the network is conditional.

        Returns:
            One energy per example, ``(*batch)``.
        """
        x = self._for_each_context(x, context)
        output = self.net(x) if context is None else self.net(x, context)
        batch = x.shape[: x.dim() - self.event_dim]
        keeps = output.shape[: len(batch)] == batch
        rule = f"map inputs of batch shape {tuple(batch)} to outputs of that batch shape"
        check(keeps, "net", rule, f"outputs of shape {tuple(output.shape)}")
        energy: Tensor = output.unsqueeze(-1).flatten(len(batch)).sum(-1)
        return energy

    def potential_fn(self, params: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the potential energy of the one site in ``params``, for the kernels of MCMC.

        An unconditional model is sampled by ``MALA(potential_fn=score.potential_fn)`` or any other
        kernel of Pyro. The energies of several examples are added up: they are independent, but
        accepted or rejected together. See
        :func:`~pyro_genmodels.mcmc.langevin_samples` for a decision per example.

        Args:
            params: A dictionary with one entry, ``(*batch, *event)``.
        """
        check(len(params) == 1, "params", "have one site, the data", sorted(params))
        (x,) = params.values()
        return self.energy(x).sum()

    def _for_each_context(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Expand ``x`` to the common batch shape, or its gradient would be a sum over contexts."""
        if context is None or self.context_event_dim is None:
            return x
        batch = broadcast_batch((x, self.event_dim), (context, self.context_event_dim))
        return x.expand(batch + x.shape[x.dim() - self.event_dim :])

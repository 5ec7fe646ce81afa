"""The importance-weighted bound with a gradient that keeps its signal with many particles."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float, Num
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.models.base.plates import log_density


def doubly_reparameterized_bound(
    model: GenerativeModel,
    x: Num[Tensor, "*batch_event"],
    context: Tensor | None,
    *,
    num_particles: int,
) -> Float[Tensor, "*batch"]:
    r"""Return the importance-weighted bound; its gradient has no score of the posterior.

    With weights :math:`w_k`, their shares :math:`s_k = w_k / \sum_j w_j`, and the posterior's
    parameters :math:`\phi` apart from all others :math:`\theta`:

    .. math:: \nabla_\theta = \sum_k s_k \nabla_\theta \log w_k, \qquad
        \nabla_\phi = \sum_k s_k^2 \, \frac{\partial \log w_k}{\partial z_k}
        \frac{\partial z_k}{\partial \phi}

    Args:
        model: A model with one latent site, which is drawn with a gradient.
        x: Data ``(*batch, *event)``.
        context: Labels or features, if the model is conditional.
        num_particles: Draws for each data point.

    Raises:
        ValueError: If the model's latent variables are others.

    References:
        Tucker et al. (2019), Doubly reparameterized gradient estimators for Monte Carlo
        objectives, eq. 8. Roeder et al. (2017), Sticking the landing, for one draw.
    """
    encoded, joint = model.particle_traces(x, context, num_particles=num_particles)
    site = _only_latent(encoded)
    z, batch = site["value"], x.shape[: x.dim() - len(model.event_shape)]
    # Of value zero; it takes the posterior's own parameters out of the gradient, not the draws.
    score = site["fn"].log_prob(z.detach())
    log_weights = log_density(joint) - log_density(encoded) + (score - score.detach())
    log_weights = log_weights.expand(num_particles, *batch)
    shares = log_weights.detach().softmax(0)
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient * shares[(...,) + (None,) * site["fn"].event_dim])
    weighted: Tensor = (shares * log_weights).sum(0)
    value: Tensor = log_weights.detach().logsumexp(0) - math.log(num_particles)
    return value + (weighted - weighted.detach())


def _only_latent(trace: Any) -> Any:
    sites = [trace.nodes[name] for name in trace.stochastic_nodes]
    latent = [site for site in sites if getattr(site["fn"], "has_rsample", False)]
    rule = "have one latent site, which is drawn with a gradient, for this estimator"
    found = ", ".join(site["name"] for site in sites) or "none"
    check(len(sites) == len(latent) == 1, "model", rule, found)
    return latent[0]

"""The test result of a model: one fixed way to compute it, so that it can be repeated."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyro_genmodels._checks import check, check_choice, check_positive, integers_checked
from pyro_genmodels._modules import evaluating
from pyro_genmodels._progress import progress_shown, tracked
from pyro_genmodels.data import DataSource
from pyro_genmodels.metrics import (
    Estimate,
    elbo,
    evidence_bounds,
    importance_weighted_bound,
    paired_gap,
)
from pyro_genmodels.models import GenerativeModel
from pyro_genmodels.training.batches import check_dataset, check_source, whole
from pyro_genmodels.training.random import seeded


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model scores on a part of its data.

    Attributes:
        split: Part of the data.
        bound: What ``nats`` estimates: the exact likelihood, or which bound on it.
        nats: Negative log-likelihood, or the bound, in nats per example.
        bits_per_dim: The same in bits per dimension, of data with missing elements per observed
            one; ``None`` for continuous data.
        elbo: Negative ELBO in nats, if the model has latent variables.
        importance_weighted: Negative importance-weighted bound in nats, if it has.
        gap: Nats per example to the true distribution, on the same examples, if it is known.
        codes: Of a vector-quantised model's ``nats`` those that its codes cost under their prior;
            the rest is the reconstruction's.
        prior: Which prior that is, "uniform" or "learned".
        report: Further figures of the model's own, in nats, by name.
    """

    split: str
    bound: str
    nats: Estimate
    bits_per_dim: Estimate | None
    elbo: Estimate | None
    importance_weighted: Estimate | None
    gap: Estimate | None
    codes: Estimate | None = None
    prior: str | None = None
    report: dict[str, Estimate] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, as ``result.json`` holds them."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """Return one line a figure."""
        lines = [f"{self.split}: {self.nats} nats, {self.bound}"]
        if self.bits_per_dim is not None:
            lines.append(f"{self.split}: {self.bits_per_dim} bits/dim, {self.bound}")
        beside = {"ELBO": self.elbo, "importance-weighted": self.importance_weighted, **self.report}
        lines += [f"  {k} {v} nats" for k, v in beside.items() if v is not None]
        if self.codes is not None:
            rest = self.nats.mean - self.codes.mean
            lines.append(f"  codes {self.codes} nats under the {self.prior} prior")
            lines.append(f"  reconstruction {rest:.2f} nats")
        if self.gap is not None:
            lines.append(f"  gap to the true distribution {self.gap} nats")
        return "\n".join(lines)


@integers_checked
def evaluate(
    model: GenerativeModel,
    source: DataSource,
    *,
    split: str = "test",
    num_particles: int | None = None,
    num_steps: int | None = None,
    chunk_size: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Score a model; the same call gives the same figures again.

    Args:
        model: The model; it is evaluated on the device where it is.
        source: Data that fit it.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        num_particles: Posterior draws per example; the model's ``default_particles`` by default:
            100, 10 for a flow whose only latent variable is the dequantisation noise, 8 for a
            diffusion model, 1 where codes are deterministic.
        num_steps: Steps of a diffusion model's chain, by default its own. Fewer take less time and
            score another model, which ``sample(num_steps=...)`` draws from; the result says so.
        chunk_size: Draws evaluated at once, which bounds memory; the model's ``default_chunk_size``
            by default.
        seed: Seed of the draws.
        progress: Show a bar where it takes more than some seconds.

    Returns:
        What the model's ``bound_kind`` says: the exact likelihood where it has one, else its
        bounds; and its ``report``.

    Raises:
        ValueError: If the data do not fit the model, or ``num_steps`` is given for a model without
            steps.
    """
    sizes = {"num_particles": num_particles, "num_steps": num_steps, "chunk_size": chunk_size}
    check_positive(**{name: size for name, size in sizes.items() if size is not None})
    options = {} if num_steps is None else {"num_steps": num_steps}
    rule = f"be left out, as {type(model).__name__} has no steps"
    check(options.keys() <= model.scoring_options, "num_steps", rule, num_steps)
    check_choice("split", split, source.splits)
    check_source(source, model)
    dataset: Any = source.splits[split]
    check_dataset(dataset, model)
    with progress_shown(progress):
        x, context = whole(dataset, model)
    particles = model.default_particles if num_particles is None else num_particles
    size = model.default_chunk_size if chunk_size is None else chunk_size
    kind = model.bound_kind
    named = {
        "exact": "exact log-likelihood",
        "elbo": "ELBO",
        "importance-weighted": f"importance-weighted bound, {particles} samples",
    }
    with seeded(seed), progress_shown(progress):
        options |= {"num_particles": particles, "chunk_size": size}
        bounds = _bounds(model, x, context, **options)
        report = _report(model, x, context, size)
    score = kind if kind in bounds else "elbo"
    estimates = {name: Estimate.of(-bound) for name, bound in bounds.items()}
    nats, gap, truth = estimates[score], None, getattr(source, "distribution", None)
    if truth is not None:
        gap = paired_gap(truth.log_prob(x).cpu(), bounds[score].cpu())
    return Evaluation(
        split=split,
        bound=", ".join([named.get(kind, f"{kind} bound"), *model.bound_notes(num_steps)]),
        nats=nats,
        bits_per_dim=None if model.num_levels is None else _bits_per_dim(nats, x, model),
        elbo=estimates.get("elbo"),
        importance_weighted=estimates.get("importance-weighted"),
        gap=gap,
        codes=report.pop("codes", None),
        prior=model.prior_kind,
        report=report,
    )


def _bits_per_dim(nats: Estimate, x: Tensor, model: GenerativeModel) -> Estimate | None:
    bits = nats.bits_per_dim(model.event_shape)
    if not model.missing:
        return bits
    # All nats over all elements that were observed: examples with more of them count for more.
    share = float((~x.isnan()).double().mean())
    return Estimate(bits.mean / share, bits.standard_error / share, bits.n) if share else None


def _bounds(
    model: GenerativeModel, x: Tensor, context: Tensor | None, **options: int
) -> dict[str, Tensor]:
    """Return what the model's ``bound_kind`` asks for, one value per example."""
    if model.bound_kind == "exact":
        return {"exact": elbo(model, x, context, chunk_size=options["chunk_size"])}
    if model.bound_kind == "elbo":
        return {"elbo": elbo(model, x, context, **options)}
    if model.weights_are_costly:
        found = evidence_bounds(model, x, context, **options)
        return {"elbo": found.elbo, "importance-weighted": found.importance_weighted}
    # With draws for each bound, as in earlier versions, so that runs score what they scored.
    return {
        "elbo": elbo(model, x, context, **options),
        "importance-weighted": importance_weighted_bound(model, x, context, **options),
    }


def _report(
    model: GenerativeModel, x: Tensor, context: Tensor | None, chunk_size: int
) -> dict[str, Estimate]:
    given = x.split(chunk_size)
    contexts = [None] * len(given) if context is None else context.split(chunk_size)
    chunks = zip(given, contexts, strict=True)
    with torch.no_grad(), evaluating(model):
        parts = [model.report(*chunk) for chunk in tracked(chunks, "evaluating", len(contexts))]
    return {name: Estimate.of(torch.cat([part[name] for part in parts])) for name in parts[0]}

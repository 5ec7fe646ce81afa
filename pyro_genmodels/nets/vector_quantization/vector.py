"""Vector quantisation: vectors to the nearest of a finite number of learned ones, and back."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from pyro_genmodels._changes import latest_step
from pyro_genmodels._checks import (
    check,
    check_choice,
    check_levels,
    check_positive,
    check_trailing,
)
from pyro_genmodels._typing import CodebookUpdate, Float, Num, Tensor
from pyro_genmodels.nets.layers.distributed import copy_from_first_rank, sum_over_ranks
from pyro_genmodels.nets.vector_quantization.base import (
    Quantized,
    Quantizer,
    perplexity_of,
    straight_through,
)
from pyro_genmodels.nets.vector_quantization.codebook import kmeans, nearest, split, totals

# k-means sees so many vectors a code, but not fewer than so many in all.
_KMEANS_VECTORS_PER_CODE, _KMEANS_VECTORS = 8, 4096
# Below this many counts epsilons an average is mostly epsilon: such a code keeps its place.
_SAFE_EPSILONS = 100
# Measured behind a learning encoder: with 50, codes so rare that its next move loses them are kept;
# with 5 or 10, codes that are chosen often enough are moved before they settle.
_RESTART_AFTER = 20.0
# Vectors since a code was chosen that was never chosen.
_NEVER = 2**62


class VectorQuantizer(Quantizer):
    r"""Replaces each vector by the nearest of K codes; the gradient passes straight through.

    .. math:: k = \arg\min_j |z - e_j|, \qquad
        L = \beta\, |z - \mathrm{sg}(e_k)|^2 / D \;[{} + |\mathrm{sg}(z) - e_k|^2 / D]

    The second term is there with ``learning="gradient"`` only. With ``"ema"`` a code is the
    average of the vectors it was chosen for, as Sonnet computes it, zero-debiased:

    .. math:: N_i \leftarrow \gamma N_i + (1 - \gamma)\, n_i, \quad
        m_i \leftarrow \gamma m_i + (1 - \gamma) \textstyle\sum z, \quad
        e_i = \frac{\hat m_i}{\tilde N_i}, \quad
        \tilde N_i = \frac{\hat N_i + \epsilon}{n + K \epsilon}\, n, \quad n = \sum \hat N_i

    with :math:`\hat N = N / (1 - \gamma^t)`. Vectors are quantised by the codes before the update.
    Unlike Sonnet's, a code with hardly any count keeps its place instead of shrinking to zero; an
    update that is not finite (an overflow under mixed precision) is left out.

    Batches whose gradients are accumulated for one optimizer step count as one batch: each goes on
    from the codes before the step, and the codes become what all vectors so far make of these. So
    averages move once a step, as they do for the batches' union, except that a restart or an
    initialisation sees the batch at hand.

    All state is in parameters and buffers, and equal on all ranks of a distributed run; a copy or
    a checkpoint within a step lacks only that the step is open. A codebook that is a parameter
    with ``requires_grad=False`` is neither initialised nor restarted.

    Args:
        dim: Size D of a vector.
        num_codes: Number K of codes.
        learning: ``"ema"``: moving averages; ``"gradient"``: a parameter that the optimizer moves.
        distance: ``"euclidean"``, or ``"cosine"``: vectors and codes are scaled to length one.
        commitment: Weight :math:`\beta` of the commitment term.
        decay: Decay :math:`\gamma` of the averages, over about ``1 / (1 - decay)`` batches.
        epsilon: Smoothing :math:`\epsilon` of the counts.
        initialization: ``"kmeans"``: by k-means on the first training batch; from batches of fewer
            vectors than codes, the vectors themselves until every code has its place.
            ``"random"``: uniform with variance 1 / D.
        warmup_batches: Training batches that pass unquantised and without loss before the codes
            are placed. An encoder that has learned a little gives k-means better clusters.
        restart_after: A code not chosen among the last ``restart_after * num_codes`` training
            vectors is moved next to a code that has vectors far from it, and takes over half of
            its cell. ``None`` restarts none.

    Attributes:
        codebook: The codes ``(K, D)``; a parameter with ``learning="gradient"``.

    Raises:
        ValueError: If an argument is out of its range.

    References:
        van den Oord et al. (2017), Neural discrete representation learning, eq. 1-3 and
        appendix A.1, https://arxiv.org/abs/1711.00937. Sonnet's ``VectorQuantizerEMA``. Yu et al.
        (2022), Vector-quantized image modeling with improved VQGAN, section 3.2 (cosine). Restarts
        follow the splits of Linde, Buzo and Gray (1980).

    Example:
        >>> quantizer = VectorQuantizer(64, 512)
        >>> quantized = quantizer(torch.randn(2, 8, 8, 64))
        >>> quantized.values.shape, quantized.codes.shape, quantized.loss.shape
        (torch.Size([2, 8, 8, 64]), torch.Size([2, 8, 8]), torch.Size([2, 8, 8]))
        >>> bool((quantizer.lookup(quantized.codes).shape == quantized.values.shape))
        True
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    frequencies: Tensor
    steps: Tensor
    idle: Tensor
    unchosen: Tensor
    num_placed: Tensor
    batches: Tensor
    _step: _OptimizerStep | None = None

    def __init__(
        self,
        dim: int,
        num_codes: int = 512,
        *,
        learning: Literal["ema", "gradient"] = "ema",
        distance: Literal["euclidean", "cosine"] = "euclidean",
        commitment: float = 0.25,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        initialization: Literal["kmeans", "random"] = "kmeans",
        warmup_batches: int = 0,
        restart_after: float | None = _RESTART_AFTER,
    ) -> None:
        super().__init__(dim, num_codes)
        check_choice("learning", learning, ("ema", "gradient"))
        check_choice("distance", distance, ("euclidean", "cosine"))
        check_choice("initialization", initialization, ("kmeans", "random"))
        check(0 < decay < 1, "decay", "be between 0 and 1", decay)
        check(commitment >= 0, "commitment", "not be negative", commitment)
        check_positive(epsilon=epsilon)
        check(warmup_batches >= 0, "warmup_batches", "not be negative", warmup_batches)
        rule = "be positive, or None"
        check(restart_after is None or restart_after > 0, "restart_after", rule, restart_after)
        self.learning, self.distance, self.commitment = learning, distance, commitment
        self.decay, self.epsilon, self.restart_after = decay, epsilon, restart_after
        self.warmup_batches = warmup_batches
        self._make_state(num_codes if initialization == "random" else 0)

    def _make_state(self, num_placed: int) -> None:
        limit = math.sqrt(3 / self.dim)
        codebook = self._normalized(torch.empty(self.num_codes, self.dim).uniform_(-limit, limit))
        if self.learning == "gradient":
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
            self.register_buffer("sums", torch.zeros_like(codebook))
        self.register_buffer("counts", torch.zeros(self.num_codes))
        # The same average, of which restarts take nothing.
        self.register_buffer("frequencies", torch.zeros(self.num_codes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        # Training vectors seen since the code was last chosen, if ever; and since then or its
        # restart.
        self.register_buffer("unchosen", torch.full((self.num_codes,), _NEVER))
        self.register_buffer("idle", torch.zeros(self.num_codes, dtype=torch.long))
        # Codes that the initialisation has put somewhere.
        self.register_buffer("num_placed", torch.tensor(num_placed))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, z: Float[Tensor, "*batch D"], *, update: CodebookUpdate = None) -> Quantized:
        """Quantise vectors; see the base class."""
        check_trailing("z", z, (self.dim,))
        updates = self._updates(update)
        begins = updates and self._begins_step(z, update)
        z = self._normalized(z.to(self.codebook.dtype))
        flat = z.detach().reshape(-1, self.dim)
        # A step's further particles take no note, but pass as its first does.
        passes = (updates or self._updates(None)) and self._warms_up(begins)
        if updates and not passes:
            self._place(flat)
        codes = nearest(flat, self._normalized(self.codebook.detach()))
        vectors = self._vectors(codes).reshape(z.shape)
        loss = self.commitment * (z - vectors.detach()).square().mean(-1)
        if self.learning == "gradient":
            loss = loss + (z.detach() - vectors).square().mean(-1)
        if passes:
            return Quantized(z, codes.reshape(z.shape[:-1]), 0 * loss)
        if updates:
            self._learn(flat, codes)
        return Quantized(straight_through(z, vectors), codes.reshape(z.shape[:-1]), loss)

    def _begins_step(self, z: Tensor, update: CodebookUpdate) -> bool:
        """Whether a training batch is its step's first; if not, go back to the step's start."""
        step, number = self._step, latest_step()
        goes_on = update == "accumulate" or (
            update is None and z.requires_grad and step is not None and step.number == number
        )
        if not goes_on or step is None or step.is_outdated(self._moving()):
            self._step = _OptimizerStep(number)
            return True
        step.rewind()
        return False

    def _warms_up(self, counts: bool) -> bool:
        """Whether training vectors are to pass unquantised; counts the batch, or does not."""
        if self.warmup_batches == 0:
            return False
        self.batches += int(counts)
        return int(self.batches) <= self.warmup_batches

    def lookup(self, codes: Num[Tensor, "*codes"]) -> Float[Tensor, "*vectors"]:
        """Return the vectors of codes; see the base class."""
        check_levels("codes", codes, self.num_codes)
        return self._vectors(codes.long())

    @property
    def perplexity(self) -> Tensor:
        """Exponential of the entropy of how often codes were chosen, averaged as codes are."""
        return perplexity_of(self.frequencies)

    @property
    def usage(self) -> Tensor:
        """Fraction of codes chosen lately: among the vectors after which an idle one is moved."""
        return (self.unchosen < self._patience).to(self.counts.dtype).mean()

    @property
    def _patience(self) -> float:
        return (self.restart_after or _RESTART_AFTER) * self.num_codes

    def _normalized(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.distance == "cosine" else vectors

    def _vectors(self, codes: Tensor) -> Tensor:
        # Normalised after the lookup: autograd must not keep the codebook, which is about to move.
        return self._normalized(F.embedding(codes, self.codebook))

    @torch.no_grad()
    def _place(self, vectors: Tensor) -> None:
        """Initialise the codes that have no place yet."""
        start = int(self.num_placed)
        room = self.num_codes - start
        if room == 0 or self._is_held:
            return
        found = vectors[torch.isfinite(vectors).all(1)]
        if len(found) >= room:
            most = max(_KMEANS_VECTORS_PER_CODE * room, _KMEANS_VECTORS)
            sample = torch.randperm(len(found), device=found.device)[:most]
            found = kmeans(found[sample], room)
        self.codebook[start : start + len(found)] = self._normalized(found)
        self.num_placed += len(found)
        copy_from_first_rank(self.codebook, self.num_placed)

    @torch.no_grad()
    def _learn(self, vectors: Tensor, codes: Tensor) -> None:
        """Take note of a training batch: averages, idle codes, restarts."""
        counts, sums = totals(vectors, codes, self.num_codes)
        batch = sum_over_ranks(torch.cat([sums, counts[:, None]], 1))
        step, finite = self._step, bool(torch.isfinite(batch).all())
        assert step is not None  # narrows the type for the checker
        if finite:
            step.add(batch)
        if step.total is None:
            return
        step.start(self._moving())
        sums, counts = step.total[:, :-1], step.total[:, -1]
        self.steps += 1
        for average in (self.counts, self.frequencies):
            average.lerp_(counts, 1 - self.decay)
        for since in (self.unchosen, self.idle):
            since.add_(counts.sum().long()).masked_fill_(counts > 0, 0)
        if self.learning == "ema":
            self.sums.lerp_(sums, 1 - self.decay)
            self._average()
        if self.restart_after is not None and finite and not self._is_held:
            self._restart(vectors, codes)
        step.close()

    def _moving(self) -> list[Tensor]:
        """Return what a training batch moves, from which the step's next batch starts again."""
        moving = [self.codebook, self.counts, self.frequencies, self.steps]
        return [*moving, self.unchosen, self.idle, *([self.sums] if self.learning == "ema" else [])]

    @property
    def _is_held(self) -> bool:
        """Whether the codebook is a parameter that is frozen."""
        return self.learning == "gradient" and not self.codebook.requires_grad

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_step": None}

    def _average(self) -> None:
        r"""Set the codes to :math:`\hat m / \tilde N`."""
        weight = self._weight_of_batches()
        counts, sums = self.counts / weight, self.sums / weight
        total = counts.sum()
        smoothed = (counts + self.epsilon) / (total + self.num_codes * self.epsilon) * total
        averages = self._normalized(sums / smoothed[:, None])
        safe = counts > _SAFE_EPSILONS * self.epsilon
        self.codebook.copy_(torch.where(safe[:, None], averages, self.codebook))

    def _weight_of_batches(self) -> Tensor:
        r"""Return :math:`1 - \gamma^t`: the rest of an average is the zero it began with."""
        return -torch.expm1(math.log(self.decay) * self.steps.to(self.counts.dtype))

    def _restart(self, vectors: Tensor, codes: Tensor) -> None:
        """Move the codes that were idle for long, each next to one whose cell it then shares."""
        unused = self.idle >= self._patience
        if not bool(unused.any()):
            return
        rows, parents, moved = split(vectors, codes, self._normalized(self.codebook), unused)
        children = torch.bincount(parents, minlength=self.num_codes)
        # Both averages start anew, as after one batch, or they would be long in parting.
        kept = torch.where(children > 0, (1 - self.decay) / (1 + children), 1.0)
        self.counts *= kept
        self.counts[rows] = self.counts[parents]
        # A gradient codebook keeps the optimizer's moments of the row: they fade in a few steps.
        self.codebook[rows] = self._normalized(moved)
        self.idle[rows] = 0
        if self.learning == "ema":
            self.sums *= kept[:, None]
            self.sums[rows] = self.counts[rows, None] * self.codebook[rows]
            copy_from_first_rank(self.sums)
        copy_from_first_rank(self.codebook, self.counts, self.idle)


class _OptimizerStep:
    """The training batches since an optimizer stepped, and the state from which they started.

    Args:
        number: Number of optimizer steps before.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.total: Tensor | None = None
        self._moving: list[Tensor] = []
        self._start: list[Tensor] = []
        self._versions: list[int] = []

    def add(self, batch: Tensor) -> None:
        """Add a batch's sums and counts to those of the step."""
        self.total = batch if self.total is None else self.total + batch

    def start(self, moving: list[Tensor]) -> None:
        """Remember tensors as they are before the step moves them."""
        self._moving, self._start = moving, [tensor.detach().clone() for tensor in moving]

    def close(self) -> None:
        """Remember that all that has moved the tensors since their start is this step."""
        self._versions = [tensor._version for tensor in self._moving]

    def is_outdated(self, moving: list[Tensor]) -> bool:
        """Whether the tensors were replaced or written to since the step's last batch."""
        if not self._moving:
            return False
        same = all(new is old for new, old in zip(moving, self._moving, strict=True))
        return not same or [tensor._version for tensor in moving] != self._versions

    @torch.no_grad()
    def rewind(self) -> None:
        """Put the tensors back to the step's start."""
        for tensor, value in zip(self._moving, self._start, strict=True):
            tensor.copy_(value)

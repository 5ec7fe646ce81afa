"""What is drawn from a diffusion model: samples, noise that stands for data, and edited data."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._batching import expands_to, over_event
from pyro_genmodels._checks import check, check_positive, check_trailing, integers_checked
from pyro_genmodels._modules import evaluating, first_tensor
from pyro_genmodels._progress import progress_shown, tracked
from pyro_genmodels._typing import Bool, Float, GivenContext, Num, Tensor
from pyro_genmodels.distributions import ReverseDiffusion, VarianceName
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.models.diffusion.estimator import DataEstimator
from pyro_genmodels.models.diffusion.samplers.base import Sampler
from pyro_genmodels.models.diffusion.samplers.choice import chosen
from pyro_genmodels.models.diffusion.samplers.guidance import ClassifierGuidance, GuidedEstimator
from pyro_genmodels.nets import signal_and_noise


class SampledDiffusion(GenerativeModel, Abstract):
    """The part of a diffusion model that draws.

    Attributes:
        estimator: Estimates the data, and holds the noise schedule and what the chain sees of data.
        num_steps: Number of steps of the model.
        variance: Of a reverse step.
    """

    estimator: DataEstimator
    num_steps: int
    variance: VarianceName

    @abstractmethod
    def decode(self, z: Float[Tensor, "*batch_values"]) -> Any:
        """Return the distribution over data given the chain's least noised state."""

    @torch.no_grad()
    @integers_checked
    def sample(
        self,
        num_samples: int = 1,
        context: GivenContext = None,
        *,
        sampler: str | Sampler = "ancestral",
        num_steps: int | None = None,
        guidance: float | ClassifierGuidance = 1.0,
        seed: int | None = None,
        progress: bool = False,
    ) -> Num[Tensor, "num_samples *batch_event"]:
        r"""Draw data, in eval mode.

        Only the ancestral sampler with all of the model's steps and guidance 1 draws from the model
        that is scored. With fewer steps it draws from the model that ``log_weights(num_steps=...)``
        scores. Of what other samplers and guidance draw there is no likelihood. The last step leads
        to the least noise level; from there the model's decoder draws, whatever the sampler.

        Args:
            num_samples: Number of draws (for each context).
            context: Labels or features ``(*batch, ...)``, if the model is conditional. ``None`` is
                the null class of a model that was trained with ``context_dropout``.
            sampler: ``"ancestral"``, ``"ddim"``, ``"pndm"``, ``"dpm"``, ``"heun"``, ``"langevin"``,
                or a :class:`Sampler` with its settings.
            num_steps: Number of steps; by default the model's own.
            guidance: Factor s of :math:`\hat x(\varnothing) + s (\hat x(c) - \hat x(\varnothing))`:
                1 is the model itself and 0 the model without its context; more is led towards the
                context. (Papers also write w = s - 1.) Other values than 1 need training with
                ``context_dropout``, and all but 0 and 1 twice the evaluations. Or a
                :class:`ClassifierGuidance`.
            seed: Seed of these draws alone, which leaves torch's own generator as it is. The same
                seed begins at the same noise with every sampler.
            progress: Whether to show a bar over the steps, once they take some seconds.

        Returns:
            Data ``(num_samples, *batch, *event)``.

        Raises:
            ValueError: If a number is not positive, the sampler is unknown, the context does not
                fit, or the model does not take the guidance.

        Example:
            >>> from pyro_genmodels.models import DenoisingNetwork, DiffusionModel
            >>> model = DiffusionModel((2,), num_levels=5, network=DenoisingNetwork(hidden=(8,)))
            >>> model.sample(3, sampler="dpm", num_steps=20, seed=0).shape
            torch.Size([3, 2])
        """
        check_positive(num_samples=num_samples)
        _, context, batch = self._checked(None, context)
        chain, way = self._chain(context, sampler, num_steps, guidance)
        with evaluating(self), self._aside(), self._seeded(seed):
            z = self._noise(chain, (num_samples, *batch))
            z = self._walked(chain, way, z, progress=progress)
            return self.decode(z).sample()

    @torch.no_grad()
    @integers_checked
    def encode(
        self,
        x: Num[Tensor, "*batch_event"],
        context: GivenContext = None,
        *,
        sampler: str | Sampler = "heun",
        num_steps: int | None = None,
        guidance: float | ClassifierGuidance = 1.0,
    ) -> Float[Tensor, "*batch_values"]:
        """Return the noise that stands for data: where the probability-flow ODE leads from them.

        :meth:`decode_noise` leads back, as nearly as the steps are fine. Over many data the noise
        is nearly standard normal. It is another thing than a draw from the guide, whose chain adds
        fresh noise.

        Args:
            x: Data ``(*batch, *event)``.
            context: As in :meth:`model`.
            sampler: Rule of the steps, a deterministic one.
            num_steps: Number of steps; by default the model's own.
            guidance: As in :meth:`sample`.

        Returns:
            Noise ``(*batch, *values)``; of levels as vectors, ``values`` has more channels.

        Raises:
            ValueError: If the sampler draws noise, or an argument does not fit.

        Example:
            >>> from pyro_genmodels.models import DenoisingNetwork, DiffusionModel
            >>> model = DiffusionModel((2,), num_levels=5, network=DenoisingNetwork(hidden=(8,)))
            >>> x = torch.tensor([[0.0, 4.0], [2.0, 1.0]])
            >>> torch.equal(model.decode_noise(model.encode(x)), x)
            True
        """
        checked, context, _ = self._checked_alone(x, context)
        chain, way = self._chain(context, sampler, num_steps, guidance)
        self._check_deterministic(way)
        with evaluating(self), self._aside():
            return self._walked(chain, way, self._least_noised(checked), upwards=True)

    @torch.no_grad()
    @integers_checked
    def decode_noise(
        self,
        z: Float[Tensor, "*batch_values"],
        context: GivenContext = None,
        *,
        sampler: str | Sampler = "heun",
        num_steps: int | None = None,
        guidance: float | ClassifierGuidance = 1.0,
    ) -> Num[Tensor, "*batch_event"]:
        """Return the data that noise stands for: where the probability-flow ODE leads from it.

        Args:
            z: Noise ``(*batch, *values)``, as :meth:`encode` gives it.
            context: As in :meth:`model`.
            sampler: Rule of the steps, a deterministic one.
            num_steps: Number of steps; by default the model's own.
            guidance: As in :meth:`sample`.

        Returns:
            Data ``(*batch, *event)``: the most probable ones given the last state.

        Raises:
            ValueError: If the sampler draws noise, or an argument does not fit.
        """
        check_trailing("z", z, self.estimator.data.shape)
        _, context, _ = self._checked(None, context)
        if context is not None:
            self.check_context_batch(context, tuple(z.shape[: -self._rank]))
        chain, way = self._chain(context, sampler, num_steps, guidance)
        self._check_deterministic(way)
        with evaluating(self), self._aside():
            return self._most_probable(self._walked(chain, way, z.to(self.dtype)))

    @torch.no_grad()
    @integers_checked
    def reconstruct(
        self,
        x: Num[Tensor, "*batch_event"],
        context: GivenContext = None,
        *,
        deterministic: bool = False,
        noise_level: float = 0.5,
        sampler: str | Sampler | None = None,
        num_steps: int | None = None,
        guidance: float | ClassifierGuidance = 1.0,
    ) -> Float[Tensor, "*batch_event"]:
        """Add noise to data up to a level, and lead them back to data of the model (SDEdit).

        The less noise, the nearer to ``x``; the more, the likelier under the model. So data of
        another kind, sketches say, become data of the model's; given another context, they become
        its.

        Args:
            x: Data ``(*batch, *event)``.
            context: As in :meth:`model`.
            deterministic: Add no noise, but go up to that level and back along the
                probability-flow ODE. That returns ``x`` as nearly as the steps are fine.
            noise_level: Share of the steps that are walked, from 0 to 1.
            sampler: Rule of the steps back; by default ``"ancestral"``, and ``"heun"`` where no
                noise is added.
            num_steps: Number of steps of the whole way; by default the model's own.
            guidance: As in :meth:`sample`.

        Returns:
            Expected data given the last state ``(*batch, *event)``, in the units of ``x``.

        Raises:
            ValueError: If the noise level lies outside of 0 to 1, the sampler draws noise with
                ``deterministic``, or an argument does not fit.

        References:
            Meng et al. (2022), SDEdit: Guided image synthesis and editing with stochastic
            differential equations. https://arxiv.org/abs/2108.01073
        """
        inside = 0 <= noise_level <= 1
        check(inside, "noise_level", "lie from 0 to 1", noise_level)
        checked, context, batch = self._checked_alone(x, context)
        default = "heun" if deterministic else "ancestral"
        chain, way = self._chain(
            context, default if sampler is None else sampler, num_steps, guidance, noise_level
        )
        if deterministic:
            self._check_deterministic(way)
        with evaluating(self), self._aside():
            if deterministic:
                z = self._walked(chain, way, self._least_noised(checked), upwards=True)
            else:
                z = self._noised(self._values(checked), chain.levels[-1].expand(batch))
            mean: Tensor = self.decode(self._walked(chain, way, z)).mean
        return mean.expand(*batch, *self.event_shape)

    @torch.no_grad()
    @integers_checked
    def inpaint(
        self,
        x: Num[Tensor, "*batch_event"],
        known: Bool[Tensor, "*known"],
        context: GivenContext = None,
        *,
        num_samples: int = 1,
        sampler: str | Sampler = "ancestral",
        num_steps: int | None = None,
        guidance: float | ClassifierGuidance = 1.0,
        seed: int | None = None,
        progress: bool = False,
    ) -> Num[Tensor, "num_samples *batch_event"]:
        """Draw the rest of data that are known in part, approximately, by replacement.

        After each step the known elements are replaced by ``x`` with fresh noise of that level.
        What is drawn meets what is known, but it is not the model's distribution given the known
        elements: earlier steps do not foresee what they will be replaced by.

        Args:
            x: Data ``(*batch, *event)``; what stands at unknown elements is not read, it may be
                NaN.
            known: Which elements are known, of a shape that broadcasts to that of ``x``.
            context: As in :meth:`model`.
            num_samples: Number of draws for each data point.
            sampler: As in :meth:`sample`.
            num_steps: As in :meth:`sample`.
            guidance: As in :meth:`sample`.
            seed: As in :meth:`sample`.
            progress: As in :meth:`sample`.

        Returns:
            Data ``(num_samples, *batch, *event)``, at known elements exactly ``x``.

        Raises:
            ValueError: If ``known`` is not Boolean or does not broadcast, or an argument does not
                fit.

        References:
            Song et al. (2021), Score-based generative modeling through stochastic differential
            equations, appendix I.2. https://arxiv.org/abs/2011.13456

        Example:
            >>> from pyro_genmodels.models import DenoisingNetwork, DiffusionModel
            >>> model = DiffusionModel((2,), num_levels=5, network=DenoisingNetwork(hidden=(8,)))
            >>> known = torch.tensor([True, False])
            >>> model.inpaint(torch.tensor([3.0, 0.0]), known, num_steps=8)[0, 0]
            tensor(3.)
        """
        check_positive(num_samples=num_samples)
        kind = known.dtype if isinstance(known, Tensor) else type(known).__name__
        check(kind == torch.bool, "known", "be a Boolean tensor", kind)
        fits = expands_to(known.shape, x.shape)
        check(fits, "known", f"broadcast to the data's shape {tuple(x.shape)}", tuple(known.shape))
        # Zero is a value of data of every kind.
        given = torch.where(known, x, torch.zeros_like(x))
        checked, context, batch = self._checked_alone(given, context)
        chain, way = self._chain(context, sampler, num_steps, guidance)
        with evaluating(self), self._aside(), self._seeded(seed):
            values = self._values(checked)
            # Channel p * C + c holds entry p of data channel c.
            copies = self.estimator.data.shape[0] // self.event_shape[0]
            kept = known.expand(x.shape)
            rank = self._rank
            kept = torch.cat([kept] * copies, -rank)

            def replaced(z: Tensor, level: Tensor) -> Tensor:
                noised = self._noised(values, level.to(z).expand(z.shape[: z.dim() - rank]))
                return torch.where(kept, noised, z)

            z = self._noise(chain, (num_samples, *batch))
            z = replaced(z, chain.levels[-1])
            z = self._walked(chain, way, z, progress=progress, edit=replaced)
            drawn = self.decode(z).sample()
        return torch.where(known, given.to(drawn.dtype), drawn)

    @property
    def _rank(self) -> int:
        return self.estimator.data.rank

    def _chain(
        self,
        context: Tensor | None,
        sampler: str | Sampler,
        num_steps: int | None,
        guidance: float | ClassifierGuidance,
        share: float = 1.0,
    ) -> tuple[ReverseDiffusion, Sampler]:
        """Return the chain that a sampler walks, or its least noisy share, and the sampler."""
        way, estimator = chosen(sampler), self.estimator
        self._check_guidance(guidance, context)
        carries = way.carries_estimate
        rule = "be False without self-conditioning"
        check(estimator.self_conditioning or not carries, "carries_estimate", rule, carries)
        levels = way.levels(estimator.schedule, num_steps, default=self.num_steps)
        levels = levels[: round(share * (len(levels) - 1)) + 1]
        denoise: Any = estimator
        if carries or isinstance(guidance, ClassifierGuidance) or guidance != 1:
            denoise = GuidedEstimator(estimator, guidance, carries_estimate=carries)
        shape, variance = estimator.data.shape, self.variance
        chain = ReverseDiffusion(denoise, levels, shape, context=context, variance=variance)
        return chain, way

    def _check_guidance(self, guidance: float | ClassifierGuidance, context: Tensor | None) -> None:
        if isinstance(guidance, ClassifierGuidance):
            return
        number = isinstance(guidance, int | float) and math.isfinite(guidance)
        check(number, "guidance", "be a finite number or a ClassifierGuidance", repr(guidance))
        if guidance != 1:
            rule = "be 1 of a model that was not trained with `context_dropout`"
            check(self.null_context, "guidance", rule, guidance)
            check(context is not None, "context", "be given with guidance other than 1", context)

    def _check_deterministic(self, way: Sampler) -> None:
        check(way.is_deterministic, "sampler", "draw no noise", way)

    def _walked(
        self,
        chain: ReverseDiffusion,
        way: Sampler,
        z: Tensor,
        *,
        upwards: bool = False,
        progress: bool = False,
        edit: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return the last state of a walk."""
        steps = way.walk(chain, z, upwards=upwards, edit=edit)
        with progress_shown(progress):
            for state in tracked(steps, "sampling", len(chain.levels) - 1):
                z = state
        return z

    def _noise(self, chain: ReverseDiffusion, batch: tuple[int, ...]) -> Tensor:
        """Draw the noisiest state, as the chain does."""
        like: dict[str, Any] = {"dtype": chain.levels.dtype, "device": chain.levels.device}
        return torch.randn(*batch, *self.estimator.data.shape, **like)

    def _values(self, checked: Tensor | None) -> Tensor:
        """Return what chains see of data that have been checked alone, in the data's units."""
        assert checked is not None  # narrows the type for the checker
        return self.estimator.data(self.standardization.standardized(checked, self.dtype))

    def _least_noised(self, checked: Tensor | None) -> Tensor:
        """Return the least noisy state of data, without its noise."""
        alpha, _ = signal_and_noise(self.estimator.schedule.ends[0])
        values = self._values(checked)
        return alpha.to(values) * values

    def _noised(self, values: Tensor, level: Tensor) -> Tensor:
        """Add noise of a level for each example."""
        alpha, sigma = (over_event(f, self._rank).to(values) for f in signal_and_noise(level))
        shape = level.shape + values.shape[values.dim() - self._rank :]
        noise = torch.randn(shape, dtype=values.dtype, device=values.device)
        return alpha * values + sigma * noise

    def _most_probable(self, z: Tensor) -> Tensor:
        """Return the most probable data given the least noised state."""
        decoder = self.decode(z)
        found: Tensor = decoder.mode if self.num_levels is not None else decoder.mean
        return found.to(self.dtype)

    @contextmanager
    def _seeded(self, seed: int | None) -> Iterator[None]:
        """Draw from a generator state of its own, if there is a seed."""
        if seed is None:
            yield
            return
        device = first_tensor(self).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

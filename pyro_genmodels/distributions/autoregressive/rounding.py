"""The images that rounding may have changed, settled in float64."""

from __future__ import annotations

import copy
import itertools
import math
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pyro_genmodels._checks import check
from pyro_genmodels.distributions.autoregressive.sampling_task import SamplingTask
from pyro_genmodels.nets import AutoregressiveNet
from pyro_genmodels.nets.autoregressive import WholeEvaluation

# In units of the last place of 1 + the largest parameter. Two evaluations were seen to differ by
# up to 5 in usual networks (2 to 15 blocks, 1 to 3 colours), by 26 with weights far out of
# proportion; a tie compares two logits.
ROUNDING = 64.0
# As soon as the errors of so many draws have been seen, a lead is safe that is SAFETY times the
# largest of them: in all networks that we have seen the largest of thousands of errors is about
# twice their 99th centile.
ENOUGH, SAFETY = 1000, 8.0
# Rounds of the fixed-point map after which an image that rounding led astray is drawn anew from
# there: at hundreds of levels the map would take hundreds of rounds.
PATIENCE = 3


class Leads:
    """How far each draw was from another one, beside what rounding can do.

    Args:
        task: The images that are drawn.
    """

    def __init__(self, task: SamplingTask) -> None:
        self._law, self._task = task.law, task
        self._least, self._most = (int(number) for number in task.num_given.aminmax())
        size = (task.batch_size, task.size)
        self.lead = torch.full(size, torch.inf, dtype=torch.float64, device=task.net.device)
        self.unit = torch.ones_like(self.lead)

    def keep(self, images: Tensor, first: int, parameters: Tensor, noise: Tensor) -> None:
        """Take the draws of some images' successive elements, from the first given.

        Raises:
            ValueError: If a parameter is not finite.
        """
        stop = first + parameters.shape[1]
        if stop <= self._least or not len(images):
            return
        largest = self._law.magnitude(parameters).amax(1, keepdim=True)
        finite = bool(torch.isfinite(largest).all())
        check(finite, "net", "give finite parameters", "NaN or infinite ones while sampling")
        lead, change = self._law.margin(parameters, noise)
        unit = change * (torch.finfo(parameters.dtype).eps * (1 + largest))
        if first < self._most:  # what is given was not drawn
            given = self._task.is_given(images)[:, first:stop]
            lead = lead.masked_fill(given, torch.inf)
        self.lead[images, first:stop] = lead.double()
        self.unit[images, first:stop] = unit.double()

    @property
    def least(self) -> Tensor:
        """Each image's smallest lead, in units of rounding."""
        return (self.lead / self.unit).amin(1)


class Settling:
    """Puts the float64 network's samples in the place of those that may differ from them.

    Args:
        task: The images that are drawn.
        leads: The leads of the draws.
    """

    def __init__(self, task: SamplingTask, leads: Leads) -> None:
        self._task, self._leads = task, leads
        self._net = task.net

    def __call__(self, x: Tensor) -> None:
        """Settle what is to be in ``x``, ``(batch, elements)``.

        The most doubtful images first; they tell how large the errors are.
        """
        least, images = self._leads.least.sort()
        num_unsure = int((least < ROUNDING).sum())
        if num_unsure == 0:
            return
        num_first = min(num_unsure, math.ceil(ENOUGH / self._task.size))
        error = self._settle(x, images[:num_first])
        doubtful = least[num_first:] < (ROUNDING if error is None else SAFETY * error)
        if doubtful.any():
            self._settle(x, images[num_first:][doubtful])

    def _settle(self, x: Tensor, images: Tensor) -> float | None:
        """Settle some images; return the largest error of a lead, if enough were seen."""
        noise = torch.cat([row[images] for row in self._task.noise()], 1)
        features = self._task.features
        features = None if features is None else features[images].double()
        wide, active = x[images].double(), torch.arange(len(images), device=x.device)
        given = self._task.is_given(images)
        error = None
        for trial in itertools.count(1):
            some = None if features is None else features[active]
            before = wide[active]
            parameters = self._parameters(before, some)
            drawn = self._task.law.draw(parameters, noise[active]).double()
            drawn = torch.where(given[active], before, drawn)
            known = first_differences(drawn, before)
            if trial == 1:
                error = self._largest_error(images, parameters, noise, known)
            if trial % PATIENCE == 0:
                drawn = self._redrawn(drawn, noise[active], some, known)
            wide[active] = drawn
            astray = known < wide.shape[1]
            active = active[astray]
            if not len(active):
                break
        x[images] = wide.to(x.dtype)
        return error

    def _largest_error(
        self, images: Tensor, parameters: Tensor, noise: Tensor, known: Tensor
    ) -> float | None:
        """Return by how many units of rounding a lead was off at most, ``None`` from too few.

        Only where all elements before are the same, and from the first that was drawn.
        """
        lead, _ = self._task.law.margin(parameters, noise)
        error = (lead - self._leads.lead[images]).abs() / self._leads.unit[images]
        places = torch.arange(error.shape[1], device=error.device)
        seen = error[~self._task.is_given(images) & (places < known[:, None])]
        seen = seen[seen.isfinite()]
        return float(seen.max()) if len(seen) >= ENOUGH else None

    def _redrawn(self, x: Tensor, noise: Tensor, features: Tensor | None, known: Tensor) -> Tensor:
        """Draw each image's elements after the known ones one by one, if the network has a cache.

        The first one to differ was drawn given the right ones, and is known too.
        """
        state = self._wide_net.incremental(len(x), features)
        if isinstance(state, WholeEvaluation):
            return x
        for position in range(x.shape[1]):
            drawn = self._task.law.draw(state.parameters(), noise[:, position])
            x[:, position] = torch.where(known < position, drawn.to(x.dtype), x[:, position])
            state.append(x[:, position])
        return x

    def _parameters(self, x: Tensor, features: Tensor | None) -> Tensor:
        inputs = self._task.in_event_order(x)
        parameters = functional_call(_Evaluation(self._net), self._weights, (inputs, features))
        return self._task.in_order(parameters)

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        """The network's parameters and buffers in float64."""
        named = (*self._net.named_parameters(), *self._net.named_buffers())
        return {
            f"net.{name}": value.double() if value.is_floating_point() else value
            for name, value in named
        }

    @cached_property
    def _wide_net(self) -> AutoregressiveNet:
        return copy.deepcopy(self._net).double()


def first_differences(x: Tensor, y: Tensor) -> Tensor:
    """Return each image's first position that differs, the number of positions if none."""
    differs = x != y
    first = differs.to(torch.uint8).argmax(1)
    return torch.where(differs.any(1), first, x.shape[1])


class _Evaluation(nn.Module):
    """Calls ``net.evaluate``, so that it can be given other parameters for one call."""

    def __init__(self, net: AutoregressiveNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, features: Tensor | None) -> Tensor:
        """Return the parameters."""
        return self.net.evaluate(x, features)

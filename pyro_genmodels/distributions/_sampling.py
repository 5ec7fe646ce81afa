"""Exact sampling of autoregressive networks: cached, parallel and naive, all to the same values.

A sample is a deterministic function of its noise: element t is drawn from the network's
parameters at t, given the elements before, by noise that is fixed beforehand for each element. So
a sample is the one fixed point of "evaluate the network at x, draw every element anew".

- *naive* evaluates the whole network for each element;
- *cached* evaluates it incrementally, each product once;
- *parallel* iterates the fixed-point map from a guess; after k rounds k elements are right, and
  mostly many more.

They add in different orders, and by rounding alone could disagree on an element once in 10^5 to
10^6, whereafter all later elements differ. Hence each reports how near its draws came to a tie,
and the images with a lead below what rounding can do are settled in float64, by iterating the map
to its fixed point. The result is the float64 network's sample, whatever method, batch or device.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pyro_genmodels._checks import check
from pyro_genmodels.distributions._output import OutputLaw
from pyro_genmodels.nets import AutoregressiveNet
from pyro_genmodels.nets._autoregressive import IncrementalEvaluation, WholeEvaluation

METHODS = ("cached", "parallel", "naive")
# In units of the last place of 1 + the largest logit. Two evaluations were seen to differ by up to
# 5 in usual networks (2 to 15 blocks, 1 to 3 colours), by 26 with weights far out of proportion; a
# tie compares two logits.
ROUNDING = 64.0
# Rounds of the fixed-point map after which an image that rounding led astray is drawn anew from
# there: at hundreds of levels one in two is, and the map would take hundreds of rounds.
PATIENCE = 8


@dataclass
class SamplingTask:
    """Draws a batch of images; one task is one batch of noise.

    Attributes:
        net: The network, in eval mode.
        law: The law of an element.
        batch_size: Number of images.
        features: Context features for each image, or ``None``.
        temperature: Factor of the noise.
        given: Values ``(batch, elements)`` in the order of generation, of which the first
            ``num_given`` are kept.
        num_given: Number of elements that are kept.
        progress: Whether to show a progress bar.
    """

    net: AutoregressiveNet
    law: OutputLaw
    batch_size: int
    features: Tensor | None = None
    temperature: float = 1.0
    given: Tensor | None = None
    num_given: int = 0
    progress: bool = False
    seed: int = field(default_factory=lambda: int(torch.randint(2**62, ())))

    @property
    def size(self) -> int:
        """Number of elements of an image."""
        return self.net.event_shape.numel()

    def noise(self) -> Iterator[Tensor]:
        """Yield the noise row by row; each call yields the same, so that none need be kept."""
        generator = torch.Generator(self.net.device).manual_seed(self.seed)
        for start in range(0, self.size, self.net.row_length):
            length = min(self.net.row_length, self.size - start)
            yield self.law.noise(self.batch_size, length, generator).mul_(self.temperature)

    def run(self, method: str) -> Tensor:
        """Return levels ``(batch, *event_shape)`` in the network's dtype."""
        with evaluating(self.net):
            if method == "parallel":
                x, lead = self._parallel()
            elif method == "naive":
                naive = WholeEvaluation(self.net, self.batch_size, self.features)
                x, lead = self._sequential(naive)
            else:
                x, lead = self._sequential(self.net.incremental(self.batch_size, self.features))
            unsure = (lead <= 0).nonzero()[:, 0]
            if len(unsure):
                x[unsure] = self._settled(x[unsure], unsure).to(x.dtype)
        return self._in_event_order(x)

    def _sequential(self, state: IncrementalEvaluation) -> tuple[Tensor, Tensor]:
        x, lead = self._start()
        position = 0
        with self._bar() as bar:
            for noise in self.noise():
                noise = noise.to(x.dtype)
                row = []
                for element in noise.unbind(1):
                    parameters = state.parameters()
                    row.append(parameters.clone())
                    if position >= self.num_given:
                        x[:, position] = self.law.draw(parameters, element)
                    state.append(x[:, position])
                    position += 1
                first = position - len(row)
                self._keep_lead(lead, torch.stack(row, 1), noise, first)
                bar.update(len(row))
        return x, lead

    def _parallel(self) -> tuple[Tensor, Tensor]:
        x, lead = self._start()
        noise = torch.cat([row.to(x.dtype) for row in self.noise()], 1)
        active = torch.arange(self.batch_size, device=x.device)
        while len(active):
            features = None if self.features is None else self.features[active]
            parameters = self._parameters(self._in_event_order(x[active]), features)
            drawn = self.law.draw(parameters, noise[active]).to(x.dtype)
            drawn[:, : self.num_given] = x[active, : self.num_given]
            done = (drawn == x[active]).all(1)
            settled = active[done]
            final = lead[settled]
            self._keep_lead(final, parameters[done], noise[settled], 0)
            lead[settled] = final
            x[active] = drawn
            active = active[~done]
        return x, lead

    def _settled(self, x: Tensor, images: Tensor) -> Tensor:
        """Return the float64 sample of some images, from a guess that is nearly right."""
        x = x.double()
        noise = torch.cat([row[images] for row in self.noise()], 1)
        features = None if self.features is None else self.features[images].double()
        wide = {
            name: value.double() if value.is_floating_point() else value
            for name, value in (*self.net.named_parameters(), *self.net.named_buffers())
        }
        for trial in itertools.count(1):
            inputs = self._in_event_order(x)
            evaluation = _Evaluation(self.net)
            state = {f"net.{name}": value for name, value in wide.items()}
            parameters = self._in_order(functional_call(evaluation, state, (inputs, features)))
            drawn = self.law.draw(parameters, noise).to(x.dtype)
            drawn[:, : self.num_given] = x[:, : self.num_given]
            first = _first_difference(drawn, x)
            if first == self.size:
                break
            x = self._redrawn(drawn, noise, features, first) if trial % PATIENCE == 0 else drawn
        return x

    def _redrawn(self, x: Tensor, noise: Tensor, features: Tensor | None, known: int) -> Tensor:
        """Draw all but the first elements anew, one after another, if the network has a cache."""
        state = copy.deepcopy(self.net).double().incremental(len(x), features)
        if isinstance(state, WholeEvaluation):
            return x
        for position in range(self.size):
            parameters = state.parameters()
            if position > known:  # the first one to differ was drawn given the right ones
                x[:, position] = self.law.draw(parameters, noise[:, position])
            state.append(x[:, position])
        return x

    def _start(self) -> tuple[Tensor, Tensor]:
        size = (self.batch_size, self.size)
        x = torch.zeros(size, dtype=self.net.dtype, device=self.net.device)
        if self.given is not None:
            x[:, : self.num_given] = self.given[:, : self.num_given].to(x)
        return x, x.new_full((self.batch_size,), torch.inf)

    def _keep_lead(self, lead: Tensor, parameters: Tensor, noise: Tensor, first: int) -> None:
        """Lower ``lead`` to the smallest lead of these draws over what rounding can do."""
        skip = max(self.num_given - first, 0)
        if skip >= parameters.shape[1] or not len(lead):
            return
        largest = self.law.magnitude(parameters).amax(1)
        check(
            bool(torch.isfinite(largest).all()),
            "net",
            "give finite parameters",
            "NaN or infinite ones while sampling",
        )
        tolerance = ROUNDING * torch.finfo(parameters.dtype).eps * (1 + largest)
        margin = self.law.margin(parameters[:, skip:], noise[:, skip:]).amin(1)
        torch.minimum(lead, margin - tolerance, out=lead)

    def _parameters(self, x: Tensor, features: Tensor | None) -> Tensor:
        return self._in_order(self.net.evaluate(x, features))

    def _in_order(self, parameters: Tensor) -> Tensor:
        return parameters.flatten(1, -2)[:, self.net.order]

    def _in_event_order(self, x: Tensor) -> Tensor:
        flat = torch.empty_like(x)
        flat[:, self.net.order] = x
        return flat.view(-1, *self.net.event_shape)

    def _bar(self) -> contextlib.AbstractContextManager[_Bar]:
        if not self.progress:
            return contextlib.nullcontext(_Bar())
        from tqdm.auto import tqdm

        return tqdm(total=self.size, desc="sampling", unit="element")  # type: ignore[no-any-return]


def _first_difference(x: Tensor, y: Tensor) -> int:
    """Return the first position at which some image differs, the number of positions if none."""
    differs = (x != y).any(0).nonzero()
    return int(differs[0]) if len(differs) else x.shape[1]


class _Bar:
    """A progress bar that shows nothing."""

    def update(self, steps: int) -> None:
        """Advance."""


class _Evaluation(nn.Module):
    """Calls ``net.evaluate``, so that it can be given other parameters for one call."""

    def __init__(self, net: AutoregressiveNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, features: Tensor | None) -> Tensor:
        """Return the parameters."""
        return self.net.evaluate(x, features)


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Run ``net`` in eval mode, full precision and without gradients, then put all back.

    Dropout must not change while one image is drawn, and products rounded to 10 bits (TF32, the
    default of cuDNN's convolutions) would make ties common.
    """
    modes = [(module, module.training) for module in net.modules() if module.training]
    device = next(net.parameters()).device.type
    tf32 = torch.backends.cudnn.allow_tf32
    try:
        for module, _ in modes:
            module.training = False
        torch.backends.cudnn.allow_tf32 = False
        with torch.inference_mode(), torch.autocast(device, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        for module, mode in modes:
            module.training = mode

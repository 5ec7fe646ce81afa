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
and the images with a lead below what rounding can do are settled in float64 (``_settling.py``).
The result is the float64 network's sample, whatever method, batch or device.

Not yet captured as a CUDA graph: the evaluations keep their place in the image as Python numbers,
so that each column of a row, at each size of the network, would be a graph of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pyro_genmodels.distributions.autoregressive.output_distributions import OutputLaw
from pyro_genmodels.distributions.autoregressive.rounding import Leads, Settling, first_differences
from pyro_genmodels.nets import AutoregressiveNet
from pyro_genmodels.nets.autoregressive.base import IncrementalEvaluation, WholeEvaluation

METHODS = ("cached", "parallel", "naive")


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
        window: Number of elements, from the first unsettled one, that a round of parallel sampling
            draws anew; all by default.
    """

    net: AutoregressiveNet
    law: OutputLaw
    batch_size: int
    features: Tensor | None = None
    temperature: float = 1.0
    given: Tensor | None = None
    num_given: int = 0
    progress: bool = False
    window: int | None = None
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
            x, leads = self._start()
            if method == "parallel":
                self._parallel(x, leads)
            elif method == "naive":
                naive = WholeEvaluation(self.net, self.batch_size, self.features)
                self._sequential(naive, x, leads)
            else:
                state = self.net.incremental(self.batch_size, self.features)
                self._sequential(state, x, leads)
            Settling(self, leads)(x)
        return self.in_event_order(x)

    def _start(self) -> tuple[Tensor, Leads]:
        size = (self.batch_size, self.size)
        x = torch.zeros(size, dtype=self.net.dtype, device=self.net.device)
        if self.given is not None:
            x[:, : self.num_given] = self.given[:, : self.num_given].to(x)
        return x, Leads(self)

    def _sequential(self, state: IncrementalEvaluation, x: Tensor, leads: Leads) -> None:
        images, position = torch.arange(self.batch_size, device=x.device), 0
        with self._bar() as bar:
            for noise in self.noise():
                row = []
                for element in noise.unbind(1):
                    parameters = state.parameters()
                    row.append(parameters.clone())
                    if position >= self.num_given:
                        x[:, position] = self.law.draw(parameters, element)
                    state.append(x[:, position])
                    position += 1
                leads.keep(images, position - len(row), torch.stack(row, 1), noise)
                bar.update(len(row))

    def _parallel(self, x: Tensor, leads: Leads) -> None:
        """Draw all elements anew until nothing changes; with a window, those next in turn only."""
        noise = torch.cat(list(self.noise()), 1)
        active = torch.arange(self.batch_size, device=x.device)
        places = torch.arange(self.size, device=x.device)
        while len(active):
            features = None if self.features is None else self.features[active]
            before = x[active]
            parameters = self.in_order(self.net.evaluate(self.in_event_order(before), features))
            drawn = self.law.draw(parameters, noise[active]).to(x.dtype)
            drawn[:, : self.num_given] = before[:, : self.num_given]
            first = first_differences(drawn, before)
            done = first == self.size
            leads.keep(active[done], 0, parameters[done], noise[active[done]])
            if self.window is not None:
                drawn = torch.where(places < first[:, None] + self.window, drawn, before)
            x[active] = drawn
            active = active[~done]

    def in_order(self, parameters: Tensor) -> Tensor:
        """Return ``(batch, elements, parameters)``, in the order of generation."""
        return parameters.flatten(1, -2)[:, self.net.order]

    def in_event_order(self, x: Tensor) -> Tensor:
        """Return what is in the order of generation as images."""
        flat = torch.empty_like(x)
        flat[:, self.net.order] = x
        return flat.view(-1, *self.net.event_shape)

    def _bar(self) -> contextlib.AbstractContextManager[_Bar]:
        if not self.progress:
            return contextlib.nullcontext(_Bar())
        from tqdm.auto import tqdm

        return tqdm(total=self.size, desc="sampling", unit="element")  # type: ignore[no-any-return]


class _Bar:
    """A progress bar that shows nothing."""

    def update(self, steps: int) -> None:
        """Advance."""


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

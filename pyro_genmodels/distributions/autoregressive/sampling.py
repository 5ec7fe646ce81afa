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
and the images with a lead below what rounding can do are settled in float64 (``rounding.py``).
The result is the float64 network's sample, whatever method, batch or device.

Not yet captured as a CUDA graph: the evaluations keep their place in the image as Python numbers,
so that each column of a row, at each size of the network, would be a graph of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from pyro_genmodels._modules import first_tensor
from pyro_genmodels._progress import progress_bar
from pyro_genmodels.distributions.autoregressive.rounding import Leads, Settling, first_differences
from pyro_genmodels.distributions.autoregressive.sampling_task import SamplingTask
from pyro_genmodels.nets.autoregressive import IncrementalEvaluation, WholeEvaluation

METHODS = ("cached", "parallel", "naive")


class Sampler:
    """Samples the images of a task.

    Args:
        task: The images.
    """

    def __init__(self, task: SamplingTask) -> None:
        self._task = task

    def run(self, method: str) -> Tensor:
        """Return levels ``(batch, *event_shape)`` in the network's dtype."""
        with reproducibly_evaluating(self._task.net):
            x, leads = self._start()
            if method == "parallel":
                self._parallel(x, leads)
            elif method == "naive":
                naive = WholeEvaluation(self._task.net, self._task.batch_size, self._task.features)
                self._sequential(naive, x, leads)
            else:
                state = self._task.net.incremental(self._task.batch_size, self._task.features)
                self._sequential(state, x, leads)
            Settling(self._task, leads)(x)
        return self._task.in_event_order(x)

    def _start(self) -> tuple[Tensor, Leads]:
        size = (self._task.batch_size, self._task.size)
        x = torch.zeros(size, dtype=self._task.net.dtype, device=self._task.net.device)
        if self._task.given is not None:
            x.copy_(self._task.given)
        return x, Leads(self._task)

    def _sequential(self, state: IncrementalEvaluation, x: Tensor, leads: Leads) -> None:
        images, position = torch.arange(self._task.batch_size, device=x.device), 0
        least, most = (int(n) for n in self._task.num_given.aminmax())
        with self._bar(self._task.size, "element") as bar:
            for noise in self._task.noise():
                row = []
                for element in noise.unbind(1):
                    parameters = state.parameters()
                    row.append(parameters.clone())
                    if position >= least:
                        drawn = self._task.law.draw(parameters, element).to(x.dtype)
                        if position < most:
                            given = position < self._task.num_given
                            drawn = torch.where(given, x[:, position], drawn)
                        x[:, position] = drawn
                    state.append(x[:, position])
                    position += 1
                leads.keep(images, position - len(row), torch.stack(row, 1), noise)
                bar.update(len(row))

    def _parallel(self, x: Tensor, leads: Leads) -> None:
        """Draw all elements anew until nothing changes; with a window, those next in turn only."""
        noise = torch.cat(list(self._task.noise()), 1)
        active = torch.arange(self._task.batch_size, device=x.device)
        places = torch.arange(self._task.size, device=x.device)
        with self._bar(len(active), "example") as bar:
            while len(active):
                features = None if self._task.features is None else self._task.features[active]
                before = x[active]
                parameters = self._task.in_order(
                    self._task.net.evaluate(self._task.in_event_order(before), features)
                )
                drawn = self._task.law.draw(parameters, noise[active]).to(x.dtype)
                drawn = torch.where(self._task.is_given(active), before, drawn)
                first = first_differences(drawn, before)
                done = first == self._task.size
                leads.keep(active[done], 0, parameters[done], noise[active[done]])
                if self._task.window is not None:
                    drawn = torch.where(places < first[:, None] + self._task.window, drawn, before)
                x[active] = drawn
                active = active[~done]
                bar.update(int(done.sum()))

    def _bar(self, total: int, unit: str) -> Any:
        if self._task.progress is None:
            return progress_bar("sampling", total, unit=unit)
        return tqdm(total=total, desc="sampling", unit=unit, disable=not self._task.progress)


@contextlib.contextmanager
def reproducibly_evaluating(net: nn.Module) -> Iterator[None]:
    """Run ``net`` in eval mode, full precision and without gradients, then put all back.

    Dropout must not change while one image is drawn, and products rounded to 10 bits (TF32, the
    default of cuDNN's convolutions) would make ties common.
    """
    modes = [(module, module.training) for module in net.modules() if module.training]
    device = first_tensor(net).device.type
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

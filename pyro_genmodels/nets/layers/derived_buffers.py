"""Buffers that follow from a module's arguments alone: masks, orders, coordinates."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class DerivedBuffers(nn.Module):
    """A module some of whose buffers are made by functions, and are no part of its state.

    A state dict need not hold what the arguments settle. But where torch replaces tensors without
    their values, as ``to_empty`` does after the meta device, nothing would bring such a buffer
    back: so it is made anew whenever it is replaced.
    """

    def register_derived(self, name: str, make: Callable[[], Tensor]) -> None:
        """Add a buffer.

        Args:
            name: Its name.
            make: Returns it, on the default device; a function that can be pickled.
        """
        self.__dict__.setdefault("_makers", {})[name] = make
        self.register_buffer(name, make(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DerivedBuffers:
        makers: dict[str, Callable[[], Tensor]] = self.__dict__.get("_makers", {})
        before = {name: self._buffers[name] for name in makers}
        super()._apply(fn, recurse)
        for name, make in makers.items():
            now = self._buffers[name]
            if now is not None and now is not before[name] and now.device.type != "meta":
                with now.device:
                    self._buffers[name] = make().to(now.dtype)
        return self

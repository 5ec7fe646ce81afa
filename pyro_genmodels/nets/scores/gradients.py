"""Gradients with respect to data, also where the caller has switched gradients off."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

TensorT = TypeVar("TensorT", Tensor, "Tensor | None")


def differentiable(x: Tensor) -> Tensor:
    """Return ``x`` if it is part of a graph, else a copy from which one can start."""
    return x if x.requires_grad else outside_inference(x).detach().requires_grad_()


def outside_inference(tensor: TensorT) -> TensorT:
    """Return a copy of a tensor from inference mode, which autograd would refuse."""
    return tensor.clone() if tensor is not None and tensor.is_inference() else tensor

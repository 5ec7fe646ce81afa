"""Abstract base classes that may be mixed with Pyro's ``PyroModule``."""

from __future__ import annotations

import inspect
from abc import ABC, update_abstractmethods
from typing import Any


class Abstract:
    """Base of abstract classes, like ``abc.ABC`` but with the ordinary metaclass.

    A class that lacks a method which its bases mark with ``@abstractmethod`` cannot be
    instantiated. ``ABC`` does the same by a metaclass of its own, and that conflicts with the
    metaclass of ``PyroModule``, so modules and transforms take this one.

    Example:
        >>> from abc import abstractmethod
        >>> class Shape(Abstract):
        ...     @abstractmethod
        ...     def area(self): ...
        >>> Shape()
        Traceback (most recent call last):
            ...
        TypeError: Can't instantiate abstract class Shape with abstract method area
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Note the methods that the class leaves abstract, for Python to refuse it by name."""
        super().__init_subclass__(**kwargs)
        # Without it, `update_abstractmethods` passes a class by.
        cls.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
        update_abstractmethods(cls)


def is_abstract(cls: type) -> bool:
    """Whether a class is a base: it lacks methods, or names an abstract base among its own."""
    return bool({ABC, Abstract} & set(cls.__bases__)) or inspect.isabstract(cls)

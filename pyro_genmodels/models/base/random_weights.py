"""Weights with a prior (``PyroSample``): drawn once per run of the model, outside its plates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, TypeAlias

from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule, PyroSample, pyro_method
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_genmodels._checks import check
from pyro_genmodels.models.base.param_registration import PartStatements, RegisteredModule
from pyro_genmodels.models.base.shared_pass import SharedPass
from pyro_genmodels.transforms import FlowTransform

Program: TypeAlias = Callable[[], Any]


def random_weights(model: nn.Module) -> list[str]:
    """Names of the module's attributes that are drawn from a prior."""
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, PyroModule)
        for name in _samples(module)
    ]


def run_with_random_weights(model: RegisteredModule, program: Program) -> Any:
    """Run a program of the model with one draw of its random weights.

    They are drawn first, so no plate that the program opens holds them, and a network that runs
    twice sees the same. The distributions at the program's sites keep the draw: the density of a
    flow is evaluated after the program has ended, when its network would draw again.

    Args:
        model: The module whose parts may have attributes that are ``PyroSample``.
        program: What to run.

    Raises:
        ValueError: If a part of such a module is checkpointed: its backward pass would evaluate it
            again, with other weights.
    """
    if not _has_pyro_modules(model):
        return program()
    roots = [root for root in _roots(model) if any(map(_samples, _pyro_modules(root)))]
    if roots:
        parts = [part for part in model.modules() if _is_checkpointed(part)]
        names = ", ".join(sorted({type(part).__name__ for part in parts}))
        check(not parts, "checkpoint", "be False in a model with random weights", names)
        _forget_evaluations(model)
        program = partial(_inside, roots, partial(_draw_and_run, roots, program))
    with PartStatements(model):
        return program()


def run_without_random_weights(model: RegisteredModule, program: Program) -> Any:
    """Run a program of the guide, which must not use random weights.

    Args:
        model: The module whose parts may have attributes that are ``PyroSample``.
        program: What to run.

    Raises:
        ValueError: If the program uses a random weight: the guide would draw it inside the plates,
            and Pyro's inference would find it in the guide but not in the model.
    """
    if not _has_pyro_modules(model):
        return program()
    with PartStatements(model), _RefusedWeights(model):
        return program()


def _has_pyro_modules(model: nn.Module) -> bool:
    return any(isinstance(module, PyroModule) for module in model.modules())


def _draw_and_run(roots: Sequence[PyroModule], program: Program) -> Any:
    with poutine.trace() as drawn:
        for module in (part for root in roots for part in _pyro_modules(root)):
            for name in _samples(module):
                getattr(module, name)
    nodes: dict[str, Any] = drawn.trace.nodes
    sites = {name: site for name, site in nodes.items() if site["type"] == "sample"}
    weights = {name: site["value"] for name, site in sites.items()}
    for name, weight in weights.items():
        rank = len(sites[name]["fn"].event_shape)
        rule = "have no batch dimensions, which layers do not take (no vectorize_particles)"
        check(rank <= 1 or weight.dim() == rank, name, rule, f"shape {tuple(weight.shape)}")
    with _KeptWeights(roots, weights):
        return program()


def _is_checkpointed(part: nn.Module) -> bool:
    return any(getattr(part, name, False) is True for name in ("checkpoint", "checkpointing"))


def _forget_evaluations(model: nn.Module) -> None:
    """Drop what was computed with an earlier draw: by flows, and by a guide for its model."""
    for part in model.modules():
        if isinstance(part, FlowTransform):
            part.clear_cache()
        if isinstance(shared := part.__dict__.get("shared_pass"), SharedPass):
            shared.clear()


def _samples(module: PyroModule) -> list[str]:
    # Pyro has no public list of them. A class may also declare them, as decorated methods.
    attributes = [item for kind in type(module).__mro__ for item in vars(kind).items()]
    declared = [name for name, attribute in attributes if isinstance(attribute, PyroSample)]
    return list(dict.fromkeys([*module._pyro_samples, *declared]))


def _pyro_modules(module: nn.Module) -> Iterator[PyroModule]:
    return (part for part in module.modules() if isinstance(part, PyroModule))


def _roots(module: nn.Module, *, inside: bool = False) -> Iterator[PyroModule]:
    """Yield each PyroModule that is not a direct part of another, which would name its sites."""
    if isinstance(module, PyroModule) and not inside:
        yield module
    for child in module.children():
        yield from _roots(child, inside=isinstance(module, PyroModule))


def _inside(roots: Sequence[PyroModule], program: Program) -> Any:
    """Run a program as a ``pyro_method`` of each module, in which an attribute is drawn once."""
    for root in roots:
        program = partial(_as_method, root, program)
    return program()


@pyro_method
def _as_method(module: PyroModule, program: Program) -> Any:
    return program()


class _RefusedWeights(Messenger):
    """Names the random weight that a guide uses."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = random_weights(model)

    def _pyro_sample(self, msg: Any) -> None:
        for name in self.names:  # a site's name begins at the outermost PyroModule
            own = name == msg["name"] or name.endswith(f".{msg['name']}")
            rule = "not be random: the guide uses it, and random weights belong to the model"
            check(not own, name, rule, "a PyroSample")


class _KeptWeights(Messenger):
    """Gives each site's distribution the weights that were drawn, if it may have a network."""

    def __init__(self, roots: Sequence[PyroModule], weights: Mapping[str, Any]) -> None:
        super().__init__()
        self.roots, self.weights = roots, weights

    def _pyro_sample(self, msg: Any) -> None:
        if _has_network(msg["fn"]):
            msg["fn"] = _Weighted(msg["fn"], self._evaluate)

    def _evaluate(self, program: Program) -> Any:
        with poutine.block(), poutine.condition(data=dict(self.weights)):
            return _inside(self.roots, program)


def _has_network(distribution: Any) -> bool:
    parts = list(vars(distribution).values())
    if hasattr(distribution, "transforms") or any(isinstance(v, nn.Module) for v in parts):
        return True
    return any(_has_network(part) for part in parts if isinstance(part, Distribution))


class _Weighted(TorchDistribution):
    """A distribution evaluated with given random weights; other attributes are the original's."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, base: Any, evaluate: Callable[[Program], Any]) -> None:
        self._base, self._evaluate = base, evaluate
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def __getattr__(self, name: str) -> Any:
        if name in ("_base", "_evaluate"):  # a copy asks before it has them
            raise AttributeError(name)
        return getattr(self._base, name)

    @property
    def has_rsample(self) -> Any:  # type: ignore[override]
        return self._base.has_rsample

    @property
    def support(self) -> Any:
        return self._base.support

    @property
    def mean(self) -> Any:
        return self._evaluate(lambda: self._base.mean)

    def sample(self, sample_shape: Any = ()) -> Any:
        return self._evaluate(lambda: self._base.sample(sample_shape))

    def rsample(self, sample_shape: Any = ()) -> Any:
        return self._evaluate(lambda: self._base.rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Any:
        return self._evaluate(lambda: self._base.log_prob(value))

    def expand(self, batch_shape: Any, _instance: Any = None) -> _Weighted:
        return _Weighted(self._base.expand(batch_shape), self._evaluate)

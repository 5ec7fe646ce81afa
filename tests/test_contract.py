"""Parts above the models ask what a model offers, not which class it is."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyro_genmodels
from pyro_genmodels import compression, data, models, nets, plotting, training
from pyro_genmodels.cli import main
from pyro_genmodels.compression import ideal_bits
from pyro_genmodels.distributions import PixelCNN
from pyro_genmodels.models import GenerativeModel
from tests.extras import CORE_ONLY

PACKAGE = Path(pyro_genmodels.__file__).parent
ABOVE = ("training", "cli", "compression", "metrics", "plotting")
FAMILIES = {
    name
    for name in models.__all__
    if inspect.isclass(getattr(models, name))
    and issubclass(getattr(models, name), GenerativeModel)
    and getattr(models, name) is not GenerativeModel
}
# Attributes that something other than a model of this package may have or not.
ASKED = {
    ("training/batches.py", "gather"): "a data set's, if it reads whole batches",
    ("training/batches.py", "set_epoch"): "a stream's, which may shuffle by it",
    ("training/batches.py", "tensors"): "a data set's, if it is in memory",
    ("training/data_fingerprint.py", "fingerprint"): "a data set's own mark",
    ("training/evaluation.py", "distribution"): "a data source's, if it is known",
    ("cli/description.py", "VAE"): "the model that is suggested first",
    ("cli/drawing.py", "encode"): "a data source's, if its data are text",
    ("cli/plan.py", "message"): "of jsonargparse's errors",
    ("metrics/bounds.py", "event_shape"): "of anything with log-weights",
    ("metrics/bounds.py", "context_event_dim"): "of anything with log-weights",
}


def branches_on_a_family(source: str) -> Iterator[tuple[str, int]]:
    """Yield what a program asks an object for by name, or the model class that it tests for."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called, arguments = node.func.id, node.args
            if called in ("hasattr", "getattr") and isinstance(arguments[1], ast.Constant):
                yield str(arguments[1].value), node.lineno
            if called in ("isinstance", "issubclass"):
                yield from _families(arguments[1])
        elif isinstance(node, ast.Compare | ast.MatchClass):
            yield from _families(node)


def _families(node: ast.AST) -> Iterator[tuple[str, int]]:
    for part in ast.walk(node):
        named = {getattr(part, field, None) for field in ("id", "attr", "value")}
        for name in named & FAMILIES:
            yield name, part.lineno  # type: ignore[attr-defined]


def sources() -> list[Path]:
    found = [PACKAGE / part for part in ABOVE]
    return [p for part in found for p in ([part] if part.is_file() else sorted(part.rglob("*.py")))]


@pytest.mark.once
def test_no_part_branches_on_a_family() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), name): line
        for path in sources()
        for name, line in branches_on_a_family(path.read_text())
    }
    assert found.keys() - ASKED.keys() == set(), "ask `GenerativeModel` for it"
    assert ASKED.keys() - found.keys() == set(), "exceptions that are not needed any more"


@pytest.mark.once
@pytest.mark.parametrize(
    "program",
    [
        "isinstance(model, VQVAE)",
        "isinstance(model, (models.VAE, int))",
        "isinstance(model, models.FlowModel | models.NVAE)",
        "issubclass(family(maker), models.VectorQuantizedModel)",
        "hasattr(model, 'prior_kind')",
        "getattr(self.model, 'dequantization', None)",
        "type(model) is models.VAE",
        "type(model).__name__ == 'VQVAE2'",
        "type(model).__name__ in ('VAE', 'NVAE')",
        "match model:\n    case models.VAE():\n        pass",
    ],
)
def test_each_way_to_branch_is_found(program: str) -> None:
    assert list(branches_on_a_family(program))


class Halves(GenerativeModel):
    """A model of the user's own: binary vectors around a latent one, scored in a way of its own."""

    default_particles: ClassVar[int] = 3
    decodes_vectors: ClassVar[bool] = True
    can_complete: ClassVar[bool] = True
    asked: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__((1, 2, 2), num_levels=2)
        self.latent_dim = 2
        self.weight = torch.nn.Parameter(torch.ones(2, 4))

    @property
    def bound_kind(self) -> str:
        return "annealed"

    def report(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        self.asked.append(len(x))
        return {"ones": x.flatten(-3).sum(-1)}

    def decode(self, z: Tensor, context: Tensor | None = None) -> Any:
        logits = (z @ self.weight).unflatten(-1, (1, 2, 2))
        return dist.Bernoulli(logits=logits, validate_args=False).to_event(3)

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        with self.latent_scale():
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        value: Tensor = pyro.sample("x", self.decode(z), obs=x)
        return value

    def infer(self, x: Tensor, context: Tensor | None) -> None:
        with self.latent_scale():
            pyro.sample("z", dist.Normal(torch.zeros(2), 0.5).to_event(1))

    def sample(
        self, num_samples: int = 1, context: Tensor | None = None, *, temperature: float = 1.0
    ) -> Tensor:
        drawn = super().sample(num_samples, context)
        return drawn * 0 if temperature == 0 else drawn

    def complete(
        self, x: Tensor, num_rows: int, context: Tensor | None = None, *, temperature: float = 1.0
    ) -> Tensor:
        return torch.cat([x[:, :, :num_rows], torch.ones_like(x[:, :, num_rows:])], 2)


class PlainHalves(Halves):
    """The same, scored by its ELBO alone."""

    @property
    def bound_kind(self) -> str:
        return "elbo"


class OneNet(GenerativeModel):
    """A model of the user's own with an exact likelihood that can be coded."""

    compresses: ClassVar[Any] = "data"

    def __init__(self) -> None:
        super().__init__((1, 2, 2), num_levels=3)
        self.net = nets.PixelCNNNet((1, 2, 2), 3, hidden_channels=4, num_blocks=1)

    def distribution(self, context: Tensor | None = None) -> PixelCNN:
        return PixelCNN(self.net, context)

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        value: Tensor = pyro.sample("x", self.distribution(context), obs=x)
        return value


def binary() -> data.DataSource:
    return data.InMemory(torch.randint(2, (60, 1, 2, 2)), num_levels=2)


def test_an_evaluation_does_what_the_model_says() -> None:
    model, source = Halves(), binary()
    Halves.asked.clear()
    result = training.evaluate(model, source, chunk_size=4)
    assert result.bound == "annealed bound"
    assert result.elbo == result.nats
    assert result.importance_weighted is not None
    ones = source.test[:][0].flatten(1).sum(1)  # type: ignore[index]
    assert result.report["ones"].mean == pytest.approx(float(ones.double().mean()))
    assert f"ones {result.report['ones']} nats" in str(result)
    assert max(Halves.asked) <= 4
    assert result == training.evaluate(model, source, chunk_size=4, num_particles=3)
    assert result != training.evaluate(model, source, chunk_size=4, num_particles=2)
    alone = training.evaluate(PlainHalves(), source)
    assert (alone.bound, alone.importance_weighted) == ("ELBO", None)


class CostlyHalves(Halves):
    """The same, with weights of whole chains."""

    weights_are_costly: ClassVar[bool] = True
    default_chunk_size: ClassVar[int] = 6

    def __init__(self) -> None:
        super().__init__()
        self.schedule = nets.LinearLogSNR()
        self.scored: list[tuple[int, int, int | None]] = []

    def rates(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        raise AssertionError("too dear while training goes on")

    def log_weights(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        num_particles: int = 1,
        num_steps: int | None = None,
    ) -> Tensor:
        self.scored.append((len(x), num_particles, num_steps))
        return super().log_weights(x, context, num_particles=num_particles)

    def bound_notes(self, num_steps: int | None = None) -> list[str]:
        return [f"{num_steps or 9} steps"]


def test_costly_weights_are_taken_once() -> None:
    model = CostlyHalves()
    result = training.evaluate(model, binary(), num_steps=4)
    assert result.bound == "annealed bound, 4 steps"
    assert {size for size, _, _ in model.scored} == {2}  # six draws, three of each example
    assert {(n, steps) for _, n, steps in model.scored} == {(3, 4)}
    assert sum(size for size, _, _ in model.scored) == len(binary().test)  # type: ignore[arg-type]
    assert model.undecayed_parameters() == ["schedule.first", "schedule.log_range"]
    assert Halves().undecayed_parameters() == []


@pytest.mark.skipif(CORE_ONLY, reason="lightning comes with an extra")
def test_costly_rates_are_left_out_of_training(tmp_path: Path) -> None:
    model = CostlyHalves()
    model.schedule.requires_grad_(False)
    options: dict[str, Any] = {"max_epochs": 1, "progress": False, "num_samples": 0}
    (row,) = training.fit(model, binary(), run=tmp_path, **options)
    assert not [name for name in row if name.startswith("rate")]


def test_defaults_are_those_of_the_latents() -> None:
    result = training.evaluate(models.VAE((1, 2, 2), num_levels=2), binary())
    assert result.bound == "importance-weighted bound, 100 samples"
    exact = training.evaluate(
        OneNet(), data.InMemory(torch.randint(3, (60, 1, 2, 2)), num_levels=3)
    )
    assert (exact.bound, exact.elbo, exact.report, exact.prior) == (
        "exact log-likelihood",
        None,
        {},
        None,
    )


@pytest.mark.skipif(CORE_ONLY, reason="constriction comes with an extra")
def test_a_model_with_an_exact_distribution_is_compressed() -> None:
    model, x = OneNet(), torch.randint(3, (5, 1, 2, 2))
    packed = compression.compress_images(model, x)
    assert torch.equal(compression.decompress_images(model, packed), x)
    assert ideal_bits(model, x) > 0
    with pytest.raises(ValueError, match=r"`model` must be an Autoregressive.*got Halves"):
        compression.compress_images(Halves(), x)


@pytest.mark.skipif(CORE_ONLY, reason="matplotlib comes with an extra")
def test_latent_vectors_are_traversed(tmp_path: Path) -> None:
    for model in (Halves(), models.FactorAnalysis((1, 2, 2), latent_dim=3)):
        plotting.save_traversals(model, tmp_path / "z.png", num_steps=3)
        assert (tmp_path / "z.png").is_file()
    with pytest.raises(ValueError, match=r"`model` must have latent vectors.*OneNet"):
        plotting.save_traversals(OneNet(), tmp_path / "none.png")


@pytest.mark.skipif(CORE_ONLY, reason="the command line comes with an extra")
def test_the_command_line_does_what_the_model_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "x.pt"
    training.fit(Halves(), binary(), run=run, max_epochs=1, progress=False, num_samples=0)
    checkpoint, given = str(run), tmp_path / "given.pt"
    torch.save(torch.zeros(2, 1, 2, 2), given)
    allow = ["--allow", f"{__name__}.Halves", "--out", str(out), "--num", "4"]
    assert main(["sample", checkpoint, *allow, "--temperature", "0"]) == 0
    assert torch.load(out).abs().max() == 0
    assert main(["sample", checkpoint, *allow, "--complete", str(given), "--rows", "1"]) == 0
    assert torch.equal(torch.load(out).mean((0, 1, 3)), torch.tensor([0.0, 1.0]))
    assert "prior" not in capsys.readouterr().out

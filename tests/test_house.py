"""The layout of the package: folders, faces, import contracts, and what was public before."""

from __future__ import annotations

import importlib
import json
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomllib

import pyro_genmodels
from tests.extras import CORE_ONLY

pytestmark = pytest.mark.once
PACKAGE = Path(pyro_genmodels.__file__).parent
ROOT = PACKAGE.parent
SAVED = Path(__file__).parent / "data" / "compatibility"
MAX_FILES = 12


def folders() -> list[Path]:
    return [PACKAGE, *(p.parent for p in sorted(PACKAGE.glob("*/**/__init__.py")))]


def module_name(folder: Path) -> str:
    return ".".join(folder.relative_to(ROOT).parts)


@pytest.mark.parametrize("folder", folders(), ids=module_name)
def test_a_folder_is_small_and_its_names_are_plain(folder: Path) -> None:
    files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(files) <= MAX_FILES
    if folder != PACKAGE:
        assert not [path.name for path in files if path.name.startswith("_")]


def test_each_folder_with_python_files_is_a_package() -> None:
    """Without an `__init__.py` pytest's doctests stop at files of the same name."""
    assert {path.parent for path in PACKAGE.rglob("*.py")} == set(folders())


@pytest.mark.parametrize("folder", folders(), ids=module_name)
def test_no_sub_module_bears_a_public_name_of_its_face(folder: Path) -> None:
    """Such a function hides the module: `import a.b.name as x` would give the function."""
    face = importlib.import_module(module_name(folder))
    public = set(getattr(face, "__all__", ()))
    modules = {info.name for info in pkgutil.iter_modules([str(folder)])}
    clashes = {name for name in public & modules if not _is_module(getattr(face, name), face, name)}
    assert not clashes


def _is_module(value: Any, face: Any, name: str) -> bool:
    return value is sys.modules.get(f"{face.__name__}.{name}")


def test_each_folder_can_be_imported_first() -> None:
    """Each in a process of its own that has loaded torch and Pyro, but nothing of this package."""
    names = [module_name(folder) for folder in folders()]
    program = f"""
import importlib, os, sys, traceback
import pyro, torch
assert not any(name.startswith("pyro_genmodels") for name in sys.modules)
failed = []
for name in {names!r}:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
print(failed)
"""
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]", result.stderr


PARTS = ("nets", "transforms", "distributions", "models", "data")
CONTRACTS = [
    "Layers of parts",
    *(f"Families of {part}" for part in PARTS),
    *(f"Others take {part} from its faces" for part in PARTS),
    "No circles",
]
# For each contract a file, and an import that breaks it; together they break every one.
VIOLATIONS = {
    "nets/layers/mlp.py": "from pyro_genmodels import training",
    "nets/layers/conv.py": "from pyro_genmodels.nets.pixelcnn import pixelcnn",
    "transforms/base/chain.py": "from pyro_genmodels.transforms.flows import glow",
    "distributions/gaussian.py": "from pyro_genmodels.distributions.autoregressive import base",
    "models/base/plates.py": "from pyro_genmodels.models.vae import vae",
    "data/base/items.py": "from pyro_genmodels.data.files import codes",
    "models/vae/vae.py": "from pyro_genmodels.nets.layers.mlp import MLP",
    "models/flows/flow_model.py": "from pyro_genmodels.transforms.layers.logit import Logit",
    "models/vae/priors.py": "from pyro_genmodels.distributions.autoregressive.base import Softmax",
    "training/fitting.py": "from pyro_genmodels.models.vae.vae import VAE",
    "training/batches.py": "from pyro_genmodels.data.base.items import as_event",
    "transforms/base/torch_protocol.py": "from typing import TYPE_CHECKING\n"
    "if TYPE_CHECKING:\n"
    "    from pyro_genmodels.transforms.base.flow_transform import FlowTransform",
}


def test_the_import_contracts_are_all_there() -> None:
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contracts = {contract["name"]: contract for contract in configured["contracts"]}
    assert set(contracts) >= set(CONTRACTS)
    for name in CONTRACTS[:6]:
        assert contracts[name]["exhaustive"], name


@pytest.mark.skipif(CORE_ONLY, reason="import-linter comes with the dev extra")
def test_each_import_contract_bites(tmp_path: Path) -> None:
    """A copy of the package with a forbidden import for each contract breaks each of them."""
    shutil.copytree(PACKAGE, tmp_path / "pyro_genmodels", ignore=shutil.ignore_patterns("__py*"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, line in VIOLATIONS.items():
        path = tmp_path / "pyro_genmodels" / name
        path.write_text(path.read_text() + f"\n{line}\n")
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", program, "--no-cache"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    kept = [name for name in CONTRACTS if f"{name} BROKEN" not in result.stdout]
    assert not kept, result.stdout + result.stderr


def _saved(name: str) -> dict[str, Any]:
    saved: dict[str, Any] = json.loads((SAVED / name).read_text())
    return saved


def test_no_fewer_tests_are_collected_than_before_the_move(request: pytest.FixtureRequest) -> None:
    """A file that pytest does not collect, by its name or its folder, takes its tests away."""
    collected = [item.nodeid for item in request.session.items]
    kinds = {
        "doctests": "pyro_genmodels/",
        "mutants": "tests/mutants/",
        "laws": "tests/test_laws.py",
        "tests": "",
    }
    counts = {
        kind: sum(line.startswith(prefix) for line in collected) for kind, prefix in kinds.items()
    }
    if not all(counts.values()):
        pytest.skip("of a whole run only: this one names files")
    before = _saved("counts.json")
    assert {kind: counts[kind] for kind in before if counts[kind] < before[kind]} == {}


@pytest.mark.parametrize("part", _saved("public_names.json"))
def test_public_names_are_still_there(part: str) -> None:
    namespace = importlib.import_module(part)
    names = _saved("public_names.json")[part]
    assert [name for name in names if not hasattr(namespace, name)] == []
    assert set(names) <= set(namespace.__all__)

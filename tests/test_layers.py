"""Imports run one way: the contracts in pyproject.toml, in a copy of the code that can break them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from apt_assets.settings.experiment import REPOSITORY

LINT = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]


@pytest.fixture
def copy(tmp_path):
    for package in ("apt_assets", "resources", "schemas"):
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder):
    done = subprocess.run(LINT, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_imports_run_one_way_as_they_are(copy):
    assert lint(copy)[0] == 0


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("resources/section.py", "import apt_assets.project", "apt_assets knows resources"),
        ("apt_assets/method/gate.py", "from apt_assets.report import look", "from the ways in down"),
        ("apt_assets/engine/plan.py", "from apt_assets.engine import execute", "engine"),
        (
            "apt_assets/settings/iterations.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from apt_assets.engine import plan",
            "from the ways in down",
        ),
    ],
)
def test_an_import_upwards_breaks_a_contract_for_types_too(copy, file, line, contract):
    path = copy / file
    path.write_text(f"{path.read_text()}\n{line}\n")
    code, said = lint(copy)
    assert code == 1
    broken = [line for line in said.splitlines() if line.endswith("BROKEN")]
    assert any(contract in line for line in broken), said

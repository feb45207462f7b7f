"""A sample of what `make torture` does in full; each part in a process of its own, from which it forks."""

import re
import subprocess
import sys

import pytest

from apt_assets.settings.experiment import REPOSITORY

pytestmark = pytest.mark.slow("cases")


@pytest.mark.parametrize(
    ("part", "counted"),
    [
        ("faults", "death, each followed by a look and a run"),
        ("corruption", "small loop: noticed"),
        ("kills", "kills"),
        ("writers", "killed, with the locks they held"),
    ],
)
def test_short_torture_finds_nothing_wrong(part, counted):
    command = [sys.executable, "-m", "tests.torture", "--short", part]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert int(re.search(rf"^  {counted}: (\d+)$", done.stdout, re.MULTILINE)[1]) > 0

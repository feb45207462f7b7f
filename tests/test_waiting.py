"""Tests wait for what has to happen, and not for a time in which it should have happened."""

import ast
from pathlib import Path

import pytest

from tests import waiting

TESTS = Path(__file__).parent


def sleeps(path):
    """Lines on which the file calls something named sleep."""
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [f"{path.name}:{call.lineno}" for call in calls if ast.unparse(call).rpartition(".")[2] == "sleep"]


def test_only_the_helper_that_waits_sleeps():
    assert len(sleeps(TESTS / "waiting.py")) == 1
    others = [path for path in TESTS.rglob("*.py") if path.name != "waiting.py"]
    assert [line for path in others for line in sleeps(path)] == []


def test_what_happens_is_returned_at_once_and_what_does_not_is_told():
    looks = iter([None, 0, "there"])
    assert waiting.until(lambda: next(looks), 60) == "there"
    assert waiting.within(0.05, lambda: None) is None
    with pytest.raises(AssertionError, match=r"not within 0.05 s: nothing yet"):
        waiting.until(lambda: None, 0.05, instead=lambda: "nothing yet")

"""benchmarks/general.py finds what a training pool knows of a benchmark: zeros in its results mean something."""

import json

import polars as pl
import pytest

from apt_assets.method.splits import normalised
from apt_assets.settings.experiment import REPOSITORY
from benchmarks.general import contamination, merged

PROMPTS = normalised(
    pl.Series(
        [
            "Diagnosis: acute pain of the left knee",
            "Diagnosis: fracture of the upper end of the right tibia with delayed healing",
        ]
    )
)
NOTHING = {"exact": 0, "near": 0, "eight_words": 0}


def choice(question, gold="x"):
    return {"question": question, "choices": ["other", gold], "gold": 1}


@pytest.mark.parametrize(
    ("item", "found"),
    [
        (choice("What is the capital of France, and of Spain?"), {}),
        (choice("diagnosis -- ACUTE pain of the left knee"), {"exact": 1, "near": 1}),
        (choice("Diagnosis: acute pain of the left", "knee"), {"exact": 1, "near": 1}),
        (choice("Diagnosis: acute pain of the right knee"), {"near": 1}),
        (choice("She had a fracture of the upper end of the right tibia."), {"eight_words": 1}),
        ({"text": "He had a fracture of the upper end of the right tibia."}, {"eight_words": 1}),
    ],
)
def test_an_item_that_the_training_pool_knows_is_found(item, found):
    others = [choice(f"Something else, number {n}") for n in range(3)]
    assert contamination([*others, item], PROMPTS) == {**NOTHING, **found}


def test_tasks_measured_elsewhere_are_not_put_into_one_table():
    about = {"dtype": "float32", "machine": {}, "libraries": {}}
    kept = {**about, "tasks": {"a": 1, "b": 1}}
    assert merged({**about, "tasks": {"b": 2}}, kept)["tasks"] == {"a": 1, "b": 2}
    with pytest.raises(SystemExit, match="dtype was float32"):
        merged({**about, "dtype": "bfloat16", "tasks": {"b": 2}}, kept)


def test_results_are_of_the_sets_as_they_are_now():
    from resources.model.lm_eval_tasks import load_tasks

    found = json.loads((REPOSITORY / "benchmarks" / "results" / "general.json").read_text())["tasks"]
    tasks = load_tasks(REPOSITORY / "tasks", dict.fromkeys(found), REPOSITORY / ".apt" / "cache" / "general")
    assert {name: its["items"] for name, its in found.items()} == {task.name: len(task.keys) for task in tasks}
    assert found.keys() == {path.stem for path in (REPOSITORY / "tasks").glob("*.yaml")}

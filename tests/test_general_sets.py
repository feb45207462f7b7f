"""The sets that are made here, as they are in this checkout's cache: fair questions, and the same everywhere."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from apt_assets.settings.experiment import REPOSITORY, Experiment
from resources.demo import downloads as embedded
from resources.demo import general_sets
from resources.demo.downloads import prepare
from resources.demo.general_sets import SETS, is_current
from resources.model.lm_eval_tasks import load_tasks

CACHE = REPOSITORY / ".apt" / "cache"
CHOICES = {"last_word": 6, "preposition": 8, "ending": 4}


@pytest.fixture(scope="module")
def items():
    """Set -> its items."""
    prepare(CACHE)
    return {
        name: [json.loads(line) for line in (CACHE / "general" / f"{name}.jsonl").read_text().splitlines()]
        for name in SETS
    }


@pytest.fixture(scope="module")
def wheel(items):
    (found,) = (CACHE / "wheels").glob("evals-*.whl")
    return found


def test_there_are_1500_items_and_more_with_as_many_choices_as_promised(items):
    assert sum(len(items[name]) for name in CHOICES) >= 1500
    for name, choices in CHOICES.items():
        assert {len(item["choices"]) for item in items[name]} == {choices}
    assert 100 <= len(items["passages"]) <= 200


def test_known_sets_are_complete_and_their_gold_is_a_choice(items):
    for name, size, choices in (("mmlu", 1000, 4), ("social_iqa", 2224, 3), ("quartz", 3860, 2)):
        assert len(items[name]) == size
        assert {len(item["choices"]) for item in items[name]} == {choices}
        assert all(0 <= item["gold"] < choices for item in items[name])


@pytest.mark.parametrize("name", CHOICES)
def test_no_question_is_asked_twice_and_no_choice_offered_twice(items, name):
    assert len({item["question"].casefold() for item in items[name]}) == len(items[name])
    for item in items[name]:
        assert len({choice.casefold() for choice in item["choices"]}) == CHOICES[name], item


@pytest.mark.parametrize("name", CHOICES)
def test_neither_place_nor_length_tells_the_gold(items, name):
    number, chance = len(items[name]), 1 / CHOICES[name]
    spread = 3.5 * (number * chance * (1 - chance)) ** 0.5
    places = Counter(item["gold"] for item in items[name])
    assert all(abs(places[place] - number * chance) < spread for place in range(CHOICES[name]))
    if name == "preposition":
        return  # a longer preposition is a rarer one, whatever follows it
    for extreme in (min, max):
        hits = 0.0
        for item in items[name]:
            lengths = [len(choice) for choice in item["choices"]]
            best = [place for place, length in enumerate(lengths) if length == extreme(lengths)]
            hits += (item["gold"] in best) / len(best)
        assert hits / number < chance + 0.1, extreme


def test_wrong_words_stand_nowhere_in_the_sentence(items):
    for item in items["last_word"]:
        words = item["question"].lower().split()
        assert not {choice for place, choice in enumerate(item["choices"]) if place != item["gold"]} & set(words), item


def test_wrong_endings_say_nothing_of_the_right_one(items):
    for item in items["ending"]:
        gold = {word.strip(".,;:!?").lower() for word in item["choices"][item["gold"]].split() if len(word) > 5}
        for place, choice in enumerate(item["choices"]):
            words = {word.strip(".,;:!?").lower() for word in choice.split() if len(word) > 5}
            assert place == item["gold"] or not gold & words, item


def test_all_choices_of_a_preposition_go_on_with_the_same_word(items):
    for item in items["preposition"]:
        assert len({choice.split(" ", 1)[1] for choice in item["choices"]}) == 1
        assert item["choices"][item["gold"]].split()[0] in general_sets.PREPOSITIONS


def test_a_text_is_in_one_set_only(items):
    texts = {name: {item["id"] for item in items[name]} for name in [*CHOICES, "passages"]}
    everywhere = [text for part in texts.values() for text in part]
    assert len(everywhere) == len(set(everywhere))
    asked = [item["question"] for name in CHOICES for item in items[name]]
    assert not [q for q in asked for passage in items["passages"] if q in passage["text"]]


def test_first_items_are_of_both_sources_and_many_texts(items):
    for name in CHOICES:
        first = [item["id"] for item in items[name][:100]]
        assert Counter(text.split("-")[0] for text in first).most_common()[-1][1] >= 20
        assert len(set(first)) >= 75


def test_sets_come_out_the_same_in_another_process(wheel, tmp_path):
    script = (
        "import sys; from pathlib import Path; from resources.demo.general_sets import *\n"
        "for name in SETS: write_set(name, Path(sys.argv[1]), Path(sys.argv[2]) / name)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", script, str(wheel), str(tmp_path)], env=environment, check=True)
    assert {name for name in SETS if is_current(name, tmp_path / name)} == set(SETS)


def test_cache_of_an_older_version_is_brought_up_to_date_and_the_rest_left_alone(items, wheel, tmp_path, monkeypatch):
    for name in ("policy", "encoder", "general"):
        (tmp_path / name).mkdir()
    (tmp_path / "icd10.jsonl").write_text("as it was")
    (tmp_path / "general" / "quartz.jsonl").write_bytes((CACHE / "general" / "quartz.jsonl").read_bytes())
    (tmp_path / "general" / "ending.jsonl").write_text("made otherwise by an older version\n")
    monkeypatch.setattr(embedded, "download", lambda folder: {"evals": wheel})
    said: list[str] = []
    prepare(tmp_path, said.append)
    assert {line.removeprefix("preparing general/") for line in said[1:]} == {
        f"{name}.jsonl" for name in SETS if name != "quartz"
    }
    assert all(is_current(name, tmp_path / "general" / f"{name}.jsonl") for name in SETS)
    assert (tmp_path / "icd10.jsonl").read_text() == "as it was"
    prepare(tmp_path, said.append)
    assert len(said) == len(SETS), "a second time there is nothing to do"


def test_every_task_file_has_its_set_and_the_default_names_some_of_them(items):
    tasks = {path.stem: None for path in (REPOSITORY / "tasks").glob("*.yaml")}
    loaded = load_tasks(REPOSITORY / "tasks", tasks, CACHE / "general")
    assert {task.name: len(task.keys) for task in loaded} == {name: len(items[name]) for name in SETS}
    assert [task.name for task in loaded if task.rolling] == ["passages"]
    usual = Experiment(name="default").benchmarks.tasks
    assert load_tasks(REPOSITORY / "tasks", usual, CACHE / "general")
    assert set(usual) == {*CHOICES, "passages"}


def test_measured_base_model_is_above_chance_and_below_the_ceiling_on_the_sets_made_here():
    found = json.loads((Path(REPOSITORY) / "benchmarks" / "results" / "general.json").read_text())["tasks"]
    for name in CHOICES:
        accuracy = found[name]["accuracy"]
        assert found[name]["chance"] + 0.3 < accuracy["low"], name
        assert accuracy["high"] < 0.95, name
    assert found["passages"]["word_perplexity"] > 1

"""General tasks of one's own: examples of other rows before each question, and files that cannot be read."""

import pytest
import yaml

from resources.model.lm_eval_tasks import TaskError, load_task, score_items
from resources.model.policy import load_policy
from tests import tiny


def few_shot_task(folder):
    """The task of colours with two examples before each item, out of a file of their own."""
    tiny.make_task(folder)
    shots = [{"question": f"rose {n} is", "choices": ["red", "loud"], "gold": 0} for n in range(8)]
    tiny.write_jsonl(folder / "shots.jsonl", shots)
    config = yaml.safe_load((folder / "colours.yaml").read_text())
    config["dataset_kwargs"]["data_files"]["train"] = "shots.jsonl"
    config |= {"fewshot_split": "train", "num_fewshot": 2}
    (folder / "colours.yaml").write_text(yaml.safe_dump(config))
    return load_task(folder / "colours.yaml", None, folder)


def test_an_item_has_the_same_score_whatever_is_scored_with_it(tiny_folder, tmp_path):
    policy, task = load_policy(tiny_folder / "policy", dtype="float32"), few_shot_task(tmp_path / "tasks")

    def scored(items):
        batches = score_items(policy, task, items, batch_tokens=256)
        return {item: score for part, scores in batches for item, score in zip(part, scores, strict=True)}

    together = scored([0, 1, 2, 3])
    assert scored([2]) == {2: together[2]}
    assert scored([1, 3]) == {item: together[item] for item in (1, 3)}


def test_other_examples_make_every_item_another_one(tmp_path):
    before = few_shot_task(tmp_path / "tasks").keys
    shots = tmp_path / "tasks" / "shots.jsonl"
    shots.write_text(shots.read_text().replace("rose 7", "tulip 7"))
    after = load_task(tmp_path / "tasks" / "colours.yaml", None, tmp_path).keys
    assert len(after) == len(before)
    assert not set(before) & set(after)


def test_a_line_separator_inside_a_text_ends_no_item(tmp_path):
    folder = tiny.make_task(tmp_path / "tasks")
    items = folder / "colours.jsonl"
    lines = items.read_text().splitlines()
    items.write_text("".join(f"{line}\r\n" for line in lines).replace(" is", "\u2028is\u0085"), encoding="utf-8")
    assert len(load_task(folder / "colours.yaml", None, tmp_path).lines) == len(lines)


@pytest.mark.parametrize("broken", [b"{broken", b'{"question": "caf\xe9"}', b'"a text"'])
def test_line_that_is_no_item_is_named_with_its_file_and_number(tmp_path, broken):
    folder = tiny.make_task(tmp_path / "tasks")
    items = folder / "colours.jsonl"
    items.write_bytes(items.read_bytes() + b"\n" + broken + b"\n")
    number = items.read_bytes().count(b"\n")
    with pytest.raises(TaskError, match=f"colours.jsonl: line {number} is no JSON object in UTF-8"):
        load_task(folder / "colours.yaml", None, folder)

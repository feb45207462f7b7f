"""General tasks of one's own: examples of other rows before each question, and files that cannot be read."""

import json
import shutil

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


CHOICES = {"question": "The sky is", "choices": ["blue", "loud noise"], "gold": 0}


def own_task(folder, items, **config):
    """A task of one's own, of these items."""
    folder.mkdir(parents=True)
    tiny.write_jsonl(folder / "own.jsonl", items)
    its = {
        "task": "own", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "own.jsonl"}},
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{question}}",
        "doc_to_choice": "choices", "doc_to_target": "gold", "metric_list": [{"metric": "acc_norm"}],
    }  # fmt: skip
    (folder / "own.yaml").write_text(yaml.safe_dump({**its, **config}))
    return load_task(folder / "own.yaml", None, folder)


def own_scores(policy, task):
    return [
        score for _, scores in score_items(policy, task, range(len(task.keys)), batch_tokens=256) for score in scores
    ]


@pytest.fixture(scope="module")
def policy(tiny_folder):
    return load_policy(tiny_folder / "policy", dtype="float32")


@pytest.mark.parametrize(
    ("asked", "item", "other"),
    [
        ("{{a}} + 2 =", {"a": 1}, {"a": 1.5}),
        ("{{question}} is", {"question": "2020-01-01"}, {"question": "Monday"}),
        ("{{question}} is", {"question": "Coal"}, {"question": "Ash", "more": {"of": "another kind"}}),
        ("{{hint|default('no hint')}} {{question}}", {}, {"hint": "Look up"}),
        ("{% if hint is defined %}{{hint}}{% endif %}{{question}}", {}, {"hint": "Look up"}),
    ],
)
def test_an_item_is_asked_in_the_same_words_whatever_else_its_file_holds(policy, tmp_path, asked, item, other):
    items = [{**CHOICES, **its} for its in (item, other)]
    alone = own_task(tmp_path / "alone", items[:1], doc_to_text=asked)
    both = own_task(tmp_path / "both", items, doc_to_text=asked)
    assert both.keys[0] == alone.keys[0]
    assert own_scores(policy, both)[:1] == own_scores(policy, alone)


@pytest.mark.parametrize(
    ("item", "config"),
    [
        ({"choices": "elsewhere"}, {"doc_to_choice": ["A", "B"]}),
        ({"choices": "elsewhere"}, {"doc_to_choice": {"first": "A", "second": "B"}}),
        ({"options": ["A", "B"]}, {"doc_to_choice": "options"}),
        ({"choices": {"text": ["A", "B"], "label": ["1", "2"]}}, {"doc_to_choice": "{{choices.text}}"}),
        ({"choices": ["A", "B"], "gold": "A"}, {}),
        ({"choices": ["A", "B"], "gold": "0"}, {}),
        ({"choices": ["A", "B"], "gold": False}, {}),
        ({"choices": "elsewhere"}, {"doc_to_choice": "['A', 'B']"}),
        ({"choices": "elsewhere"}, {"doc_to_choice": ["A", "B"], "doc_to_target": 0}),
        ({"choices": ["A", "B"]}, {"doc_to_target": "{{gold}}", "metric_list": [{"metric": "acc"}]}),
    ],
)
def test_choices_and_gold_in_any_of_lm_evals_forms_have_the_same_scores(policy, tmp_path, item, config):
    plain = own_task(tmp_path / "plain", [{**CHOICES, "choices": ["A", "B"]}])
    assert own_scores(policy, own_task(tmp_path / "own", [{**CHOICES, **item}], **config)) == own_scores(policy, plain)


@pytest.mark.parametrize(
    ("gold", "config"),
    [("4", {}), ("4", {"doc_to_target": "{{gold}}"}), (1, {"doc_to_target": "{{gold}}"}), (1, {})],
)
def test_choices_that_are_digits_have_their_gold_by_text_or_by_number(policy, tmp_path, gold, config):
    digits = {**CHOICES, "choices": ["3", "4"]}
    plain = own_task(tmp_path / "plain", [{**digits, "gold": 1}])
    assert own_scores(policy, own_task(tmp_path / "own", [{**digits, "gold": gold}], **config)) == own_scores(
        policy, plain
    )


@pytest.mark.parametrize("gold", ["0", "blue", False])
def test_examples_show_the_gold_by_its_text_however_it_is_named(policy, tmp_path, gold):
    shots = {"num_fewshot": 2, "fewshot_config": {"doc_to_text": "{{question}}"}}
    items = [{**CHOICES, "question": question} for question in ("7", "8", "9")]
    plain = own_task(tmp_path / "plain", items, **shots)
    named = own_task(tmp_path / "own", [{**item, "gold": gold} for item in items], **shots)
    assert own_scores(policy, named) == own_scores(policy, plain)


def test_a_question_of_digits_is_a_question(policy, tmp_path):
    by_field = own_task(tmp_path / "field", [{**CHOICES, "question": "7"}], doc_to_text="question")
    by_template = own_task(tmp_path / "template", [{**CHOICES, "question": "7"}])
    assert own_scores(policy, by_field) == own_scores(policy, by_template)


@pytest.mark.parametrize(("text", "words"), [("2020-01-01", 1), ("[1, 2]", 2), ("['a']", 1)])
def test_a_passage_is_scored_as_it_stands(policy, tmp_path, text, words):
    passages = {"output_type": "loglikelihood_rolling", "doc_to_choice": None, "doc_to_target": "{{text}}"}
    (score,) = own_scores(policy, own_task(tmp_path / "own", [{"text": text}], doc_to_text="", **passages))
    assert score["words"] == words
    assert score["nats"] > len(text), "of a tokenizer of bytes"


@pytest.mark.parametrize(
    ("item", "config", "why"),
    [
        ({"choices": ["blue"]}, {}, "own.jsonl: item 2: needs two choices or more"),
        ({"choices": ["blue", ""]}, {}, "own.jsonl: item 2: needs two choices or more"),
        ({"gold": [0, 1]}, {}, r"own.jsonl: item 2: needs one gold, .* and has \[0, 1\]"),
        ({"gold": 2}, {}, "own.jsonl: item 2: needs one gold, .* and has 2"),
        ({}, {"doc_to_choice": "options"}, r"own.jsonl: item 1: has no 'options' \(doc_to_choice\)"),
        ({"question": None}, {"doc_to_text": "question"}, r"own.jsonl: item 2: has no 'question' \(doc_to_text\)"),
        ({"gold": None}, {}, r"own.jsonl: item 2: has no 'gold' \(doc_to_target\)"),
        ({}, {"include": "other.yaml"}, "own.yaml: include: other files are not read"),
        ({}, {"dataset_kwargs": {"data_files": {"test": ["own.jsonl"]}}}, "data_files.test: needs the name of one"),
    ],
)
def test_what_cannot_be_scored_is_named_before_anything_is(tmp_path, item, config, why):
    with pytest.raises(TaskError, match=why):
        own_task(tmp_path / "own", [CHOICES, {**CHOICES, **item}], **config)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"doc_to_target": "{{question|length - 4}}"}, "task own: test: item 2: needs one gold, .* and has .6"),
        ({"doc_to_text": "{{nothing.of.it}}"}, "task own: test: item 1: 'nothing' is undefined"),
        ({"doc_to_choice": "{{[1, question|length]}}"}, "task own: test: item 1: needs two choices or more"),
        ({"filter_list": [{"name": "none"}]}, "task own: lm-eval cannot read it"),
    ],
)
def test_a_template_that_makes_nothing_to_score_is_named(policy, tmp_path, config, why):
    with pytest.raises(TaskError, match=why):
        own_scores(policy, own_task(tmp_path / "own", [{**CHOICES, "question": "Coal"}, CHOICES], **config))


def test_a_passage_without_its_text_is_named(tmp_path):
    passages = {"output_type": "loglikelihood_rolling", "doc_to_target": "text"}
    with pytest.raises(TaskError, match=r"own.jsonl: item 2: has no .text."):
        own_task(tmp_path / "own", [{"text": "a b"}, {"other": "c"}], **passages)


def test_a_task_without_a_name_has_that_of_its_file(policy, tmp_path):
    task = own_task(tmp_path / "own", [CHOICES], task=None)
    assert own_scores(policy, task) == own_scores(policy, own_task(tmp_path / "named", [CHOICES]))


def test_items_are_scored_where_the_model_alone_names_an_end_token(tiny_folder, tmp_path):
    model = shutil.copytree(tiny_folder / "policy", tmp_path / "policy")
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": None}))
    policy = load_policy(model, dtype="float32")
    assert policy.tokenizer.eos_token is None
    for name in ("colours", "sayings"):
        task = load_task(tiny_folder / "tasks" / f"{name}.yaml", None, tmp_path)
        named = load_policy(tiny_folder / "policy", dtype="float32")
        assert own_scores(policy, task) == own_scores(named, task)


def test_task_that_has_the_name_of_all_tasks_together_is_refused(tmp_path):
    task = tiny.make_task(tmp_path / "tasks") / "colours.yaml"
    with pytest.raises(TaskError, match="all is what scores of all tasks together are called"):
        load_task(task.rename(task.with_name("all.yaml")), None, tmp_path)

"""Rows as the data sets that people have write them: each lands as it is meant, or is refused with what to do."""

import json

import pytest

from apt_assets.landing.chunks import BadField
from apt_assets.landing.formats import SHAPES, shape_of
from apt_assets.landing.land import land_files
from apt_assets.landing.records import as_further, check, contents_of, read_landed
from tests import tiny

ALPACA, CHAT, CHOICE, PAIR, PLAIN, PREFERENCE, LABEL = (
    next(shape.name for shape in SHAPES if word in shape.name)
    for word in ("Alpaca", "a chat", "choice", "a question", "prompt and answer", "preference", "label")
)


def user(content, **more):
    return {"role": "user", "content": content, **more}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def system(content):
    return {"role": "system", "content": content}


def said(who, value):
    return {"from": who, "value": value}


def call(name, arguments):
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


def bad(record):
    """(field, reason) of a record that is refused."""
    with pytest.raises(BadField) as caught:
        check(record)
    return caught.value.field, caught.value.reason


# -- shapes ----------------------------------------------------------------------------------------------

SKY = "Colour of the sky?"
RIGHT, WRONG = assistant("blue"), assistant("green")
HH = "\n\nHuman: Hello\n\nAssistant: Yes?\n\nHuman: Colour of the sky?\n\nAssistant: {}"
READ = [
    # Alpaca, Dolly, LLaMA-Factory
    (ALPACA, {"instruction": SKY, "input": "At noon.", "output": "blue"}, f"{SKY}\n\nAt noon.", ["blue"], None),
    (ALPACA, {"instruction": SKY, "input": "", "output": "blue"}, SKY, ["blue"], None),
    (ALPACA, {"instruction": SKY, "input": None, "output": "blue"}, SKY, ["blue"], None),
    (ALPACA, {"instruction": SKY, "response": "blue"}, SKY, ["blue"], None),
    (ALPACA, {"instruction": SKY, "context": "At noon.", "response": "blue"}, f"{SKY}\n\nAt noon.", ["blue"], None),
    (
        ALPACA,
        {"instruction": SKY, "output": "blue", "system": "Be brief.", "history": [["Hello", "Yes?"]]},
        f"Be brief.\n\nuser: Hello\n\nassistant: Yes?\n\nuser: {SKY}",
        ["blue"],
        None,
    ),
    # ShareGPT and its kin
    (CHAT, {"conversations": [said("human", SKY), said("gpt", "blue")]}, SKY, ["blue"], None),
    (CHAT, {"conversations": [said("user", SKY), said("chatgpt", "blue")]}, SKY, ["blue"], None),
    (CHAT, {"conversations": [said("system", "Be brief."), said("human", SKY), said("bing", "blue")]},
     f"Be brief.\n\n{SKY}", ["blue"], None),
    (CHAT, {"conversations": [said("human", SKY), said("gpt", "blue")], "system": "Be brief."},
     f"Be brief.\n\n{SKY}", ["blue"], None),
    (CHAT, {"conversation": [{"input": "Hello", "output": "Yes?"}, {"input": SKY, "output": "blue"}]},
     f"user: Hello\n\nassistant: Yes?\n\nuser: {SKY}", ["blue"], None),
    (CHAT, {"conversations": [said("human", "How hot?"), said("function_call", "heat()"), said("observation", "40"),
                              said("gpt", "It is 40.")]},
     "user: How hot?\n\nassistant: heat()\n\ntool: 40", ["It is 40."], None),
    # OpenAI, Gemini, UltraChat
    (CHAT, {"messages": [{"role": "developer", "content": "Be brief."}, user(SKY), RIGHT]},
     f"Be brief.\n\n{SKY}", ["blue"], None),
    (CHAT, {"messages": [user("How hot?"), assistant(None, tool_calls=[call("heat", '{"at": "noon"}')]),
                         {"role": "tool", "tool_call_id": "1", "content": "40"}, assistant("It is 40.")],
            "tools": [{"type": "function"}]},
     'user: How hot?\n\nassistant: heat({"at": "noon"})\n\ntool: 40', ["It is 40."], None),
    (CHAT, {"messages": [user("How hot?"), assistant("Let me see.", function_call={"name": "heat", "arguments": {}}),
                         {"role": "function", "name": "heat", "content": {"degrees": 40}}, assistant("It is 40.")]},
     'user: How hot?\n\nassistant: Let me see.\nheat({})\n\ntool: {"degrees": 40}', ["It is 40."], None),
    (CHAT, {"messages": [user([{"type": "text", "text": SKY}], name="Ann"), assistant("blue", weight=None)],
            "tools": None, "weight": None}, SKY, ["blue"], None),
    (CHAT, {"messages": [system(""), system(None), user(SKY), RIGHT]}, SKY, ["blue"], None),
    (CHAT, {"contents": [{"role": "user", "parts": [{"text": SKY}]}, {"role": "model", "parts": [{"text": "blue"}]}]},
     SKY, ["blue"], None),
    (CHAT, {"prompt": SKY, "messages": [user(SKY), RIGHT], "prompt_id": "a"}, SKY, ["blue"], None),
    (CHAT, {"prompt": SKY, "messages": [system("Be brief."), user(SKY + " "), RIGHT]},
     f"Be brief.\n\n{SKY}", ["blue"], None),
    (CHAT, {"prompt": "Hello", "messages": [user("Hello"), assistant("Yes?"), user(SKY), RIGHT]},
     f"user: Hello\n\nassistant: Yes?\n\nuser: {SKY}", ["blue"], None),
    (CHAT, {"messages": [user(SKY), RIGHT], "rejected_response": "green"}, SKY, ["blue"], "green"),
    # preferences: TRL, Argilla, Intel, OpenAI, HH-RLHF
    (PREFERENCE, {"prompt": SKY, "chosen": "blue", "rejected": "green"}, SKY, ["blue"], "green"),
    (PREFERENCE, {"prompt": [user(SKY)], "chosen": [RIGHT], "rejected": [WRONG]}, SKY, ["blue"], "green"),
    (PREFERENCE, {"prompt": SKY, "chosen": [user(SKY), RIGHT], "rejected": [user(SKY), WRONG],
                  "messages": [user(SKY), RIGHT], "score_chosen": 8.0}, SKY, ["blue"], "green"),
    (PREFERENCE, {"chosen": [user(SKY), RIGHT], "rejected": [user(SKY), WRONG]}, SKY, ["blue"], "green"),
    (PREFERENCE, {"prompt": "The sky is", "chosen": "The sky is blue.", "rejected": "The sky is green."},
     "The sky is", ["blue."], "green."),
    (PREFERENCE, {"chosen": "The sky is blue.", "rejected": "The sky is green."}, "The sky is", ["blue."], "green."),
    (PREFERENCE, {"chosen": HH.format("blue"), "rejected": HH.format("green")},
     f"user: Hello\n\nassistant: Yes?\n\nuser: {SKY}", ["blue"], "green"),
    (PREFERENCE, {"instruction": SKY, "chosen_response": "blue", "rejected_response": "green"},
     SKY, ["blue"], "green"),
    (PREFERENCE, {"system": "Be brief.", "question": SKY, "chosen": "blue", "rejected": "green"},
     f"Be brief.\n\n{SKY}", ["blue"], "green"),
    (PREFERENCE, {"conversations": [said("human", SKY)], "chosen": said("gpt", "blue"), "rejected": said("gpt", "red")},
     SKY, ["blue"], "red"),
    (PREFERENCE, {"input": {"messages": [user(SKY)], "tools": []}, "preferred_output": [RIGHT],
                  "non_preferred_output": [assistant("green", weight=0)]}, SKY, ["blue"], "green"),
    (PREFERENCE, {"question": SKY, "response_j": "blue", "response_k": "green"}, SKY, ["blue"], "green"),
    (PREFERENCE, {"prompt": SKY, "chosen": "blue", "rejected": ["green", "red"]}, SKY, ["blue"], "green"),
    (PREFERENCE, {"prompt": SKY, "chosen": "blue"}, SKY, ["blue"], None),
    # question and answer: MetaMath, SQuAD, NQ, TriviaQA, TRL, OpenAI evals
    (PAIR, {"question": SKY, "answer": "blue"}, SKY, ["blue"], None),
    (PAIR, {"query": SKY, "response": "blue", "type": "sky"}, SKY, ["blue"], None),
    (PAIR, {"prompt": SKY, "completion": " blue"}, SKY, ["blue"], None),
    (PAIR, {"prompt": SKY, "completion": "blue", "label": True}, SKY, ["blue"], None),
    (PAIR, {"prompt": [user(SKY)], "completion": [RIGHT]}, SKY, ["blue"], None),
    (PAIR, {"input": SKY, "output": "green", "expected": "blue"}, SKY, ["blue"], None),
    (PAIR, {"input": [system("Be brief."), user(SKY)], "ideal": ["blue", "azure"]},
     f"Be brief.\n\n{SKY}", ["blue", "azure"], None),
    (PAIR, {"system_prompt": "Be brief.", "question": SKY, "response": "blue"}, f"Be brief.\n\n{SKY}", ["blue"], None),
    (PAIR, {"context": "It is noon.", "question": SKY, "answers": {"text": ["blue", "blue"], "answer_start": [1, 9]}},
     f"It is noon.\n\n{SKY}", ["blue"], None),
    (PAIR, {"question": SKY, "answers": ["blue", "", None, "azure"]}, SKY, ["blue", "azure"], None),
    (PAIR, {"question": SKY, "answer": {"value": "blue", "aliases": ["Azure"], "type": "WikipediaEntity"}},
     SKY, ["blue", "Azure"], None),
    (PAIR, {"question": SKY, "answer": "blue", "answer_aliases": ["azure"]}, SKY, ["blue", "azure"], None),
    (PAIR, {"Question": SKY, "ANSWER ": "blue"}, SKY, ["blue"], None),
    (PLAIN, {"prompt": SKY, "answer": ["blue", "azure"]}, SKY, ["blue", "azure"], None),
    (PLAIN, {"prompt": SKY, "answer": "blue", "aliases": ["azure"]}, SKY, ["blue", "azure"], None),
    (PLAIN, {"prompt": SKY, "answer": "blue", "rejected": "green"}, SKY, ["blue"], "green"),
    (PLAIN, {"prompt": SKY, "answer": "blue", "response": "green", "input": "x", "system": "y"}, SKY, ["blue"], None),
    # multiple choice: ARC, MedQA; labels: SetFit
    (CHOICE, {"question": SKY, "choices": {"text": ["red", "blue"], "label": ["1", "2"]}, "answerKey": "2"},
     f"{SKY}\nA. red\nB. blue", ["B"], None),
    (CHOICE, {"question": SKY, "options": {"A": "red", "B": "blue"}, "answer": "blue", "answer_idx": "B"},
     f"{SKY}\nA. red\nB. blue", ["B"], None),
    (CHOICE, {"article": "It is noon.", "question": SKY, "options": ["red", "blue"], "answer": "B"},
     f"It is noon.\n\n{SKY}\nA. red\nB. blue", ["B"], None),
    (LABEL, {"text": "My card is gone.", "label": "Cards"}, "My card is gone.", ["Cards"], None),
    (LABEL, {"text": "My card is gone.", "label": 3, "label_text": "Cards"}, "My card is gone.", ["Cards"], None),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "record", "prompt", "golds", "rejected"), READ, ids=range(len(READ)))
def test_shape_that_people_have_is_read_as_it_is_meant(shape, record, prompt, golds, rejected):
    assert shape_of(record) == shape
    found = check(record)
    assert (found.prompt, found.answer, found.also) == (prompt, golds[0], as_further(golds))
    assert found.rejected == rejected


@pytest.mark.parametrize(
    ("record", "field", "reason"),
    [
        ({"conversations": [said("human", SKY), said("gpt", "blue"), said("human", "Thanks")]}, "conversations",
         "must end with a user's and an assistant's turn, got user assistant user"),
        ({"conversations": [said("narrator", SKY), said("gpt", "blue")]}, "conversations[0].from", "must be one of"),
        ({"messages": [user(SKY), assistant(None, tool_calls=[call("see", "{}")])]}, "messages", "call of a tool"),
        ({"messages": [user(SKY), assistant("It"), assistant("is blue")]}, "messages", "got user assistant assistant"),
        ({"prompt": "Another?", "messages": [user(SKY), RIGHT]}, "prompt", "is not what messages begins with"),
        ({"prompt": "Another?", "chosen": [user(SKY), RIGHT]}, "prompt", "is not what chosen begins with"),
        ({"prompt": SKY, "chosen": 1, "rejected": 0}, "chosen", "must be text, got int"),
        ({"frage": SKY, "chosen": "It is blue", "rejected": "It is green"}, "prompt", "no question beside chosen"),
        ({"chosen": "blue", "rejected": "green"}, "prompt", "no question beside chosen"),
        ({"prompt": SKY, "completion": "green", "label": False}, "label", "marked as a bad one"),
        ({"text": SKY, "label": 3}, "label", "write the label's name in its place"),
        ({"text": SKY}, "answer", "a text alone has no answer"),
        ({"question": SKY, "answers": {"text": [], "answer_start": []}}, "answers", "empty"),
        ({"question": SKY, "answer": True}, "answer", "must be text, got bool: write it as text, in quotes"),
        ({"prompt": SKY, "answer": 5}, "answer", "must be text, got int: write it as text, in quotes"),
        ({"instruction": SKY, "input": "At noon."}, "answer", "missing"),
        ({"input": [{"role": "tool", "content": "40"}], "output": "blue"}, "input", "with a user's turn, got tool"),
        ({"question": SKY, "choices": {"text": ["red", "blue"], "label": 5}, "answer": "C"}, "answer", "is neither"),
        ({"frage": SKY, "antwort": "blau"}, "prompt", "missing"),
        ({"question": SKY, "choices": {"text": ["a", "b"], "label": ["1", "2", "3"]}, "answerKey": "3"}, "choices",
         "3 labels for 2 texts"),
    ],
)  # fmt: skip
def test_row_that_cannot_be_read_as_it_is_meant_is_refused_with_its_field_and_what_to_do(record, field, reason):
    found, why = bad(record)
    assert found == field
    assert reason in why


def test_what_a_shape_does_not_read_is_kept_with_the_row():
    record = {
        "instruction": SKY,
        "output": "blue",
        "category": "sky",
        "rejected": 7,
        "tools": [1],
        "metadata": {"n": 1},
    }
    found = check(record)
    assert json.loads(found.metadata) == {"category": "sky", "rejected": 7, "tools": [1], "n": 1}
    several = check({"prompt": SKY, "answer": "blue", "rejected": ["green", "red"]})
    assert (several.rejected, json.loads(several.metadata)) == ("green", {"rejected": ["green", "red"]})


@pytest.mark.parametrize("rejected", ["azure", "blue", "", 7, "a\x00b", [], [user("Grass?"), WRONG], {"role": "odd"}])
def test_rejected_answer_that_is_right_or_unusable_costs_no_row(rejected):
    found = check({"prompt": SKY, "answer": ["blue", "azure"], "rejected": rejected})
    assert (found.answer, found.rejected) == ("blue", None)
    assert json.loads(found.metadata) == {"rejected": rejected}


# -- turns that are not to be learned ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "mark",
    [{"weight": 0}, {"weight": 0.0}, {"weight": "0"}, {"weight": False}, {"weight": -1}, {"train": False},
     {"trainable": "no"}, {"loss": False}, {"loss_mask": 0}, {"train_on_turn": False}, {"weight": 1, "train": "False"}],
    ids=str,
)  # fmt: skip
def test_turn_that_is_not_to_be_learned_is_never_the_gold(mark):
    assert bad({"messages": [user(SKY), assistant("a draft", **mark)]})[1].startswith("no turn of the assistant is to")
    learned_before = [user(SKY), assistant("blue"), user("And grass?"), assistant("a draft", **mark)]
    assert check({"messages": learned_before})[:2] == (SKY, "blue")
    learned_after = [user("And grass?"), assistant("a draft", **mark), user(SKY), assistant("blue", weight=1)]
    found = check({"messages": learned_after})
    assert found[:2] == (f"user: And grass?\n\nassistant: a draft\n\nuser: {SKY}", "blue")


@pytest.mark.parametrize("mark", [{"weight": 1}, {"weight": 0.5}, {"weight": "1"}, {"train": True}, {"loss": None}])
def test_turn_with_any_weight_above_0_is_learned(mark):
    assert check({"messages": [user(SKY), assistant("blue", **mark)]})[:2] == (SKY, "blue")


def test_weight_that_is_none_is_named():
    field, reason = bad({"messages": [user(SKY), assistant("blue", weight="often")]})
    assert (field, reason) == ("messages[1].weight", "must be 0 or 1, or left out, got 'often'")


# -- side fields -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "split"),
    [("val", "validation"), ("dev", "validation"), ("Valid", "validation"), ("eval", "validation"), ("TRAIN", "train"),
     ("Test", "test"), ("testing", "test"), ("train_sft", "train"), ("test_prefs", "test"), ("held-out", "test"),
     ("validation_matched", "validation"), ("train[:80%]", "train"), (" training ", "train"), (None, None),
     ("gold", None), ("latest", None), ("pretrain", None), (3, None), (["test"], None), ("", None)],
)  # fmt: skip
def test_split_of_any_spelling_is_meant_and_an_unknown_one_costs_no_row(named, split):
    found = check({"prompt": SKY, "answer": "blue", "split": named})
    assert (found.answer, found.split) == ("blue", split)
    assert found.metadata == (None if split or named is None else json.dumps({"split": named}))


@pytest.mark.parametrize(
    ("given", "source_id", "metadata"),
    [
        ({"id": 1.0}, "1", None), ({"id": 7}, "7", None), ({"id": "T-1"}, "T-1", None), ({"id": None}, None, None),
        ({"id": 1.5}, None, {"id": 1.5}), ({"id": True}, None, {"id": True}), ({"id": ["a"]}, None, {"id": ["a"]}),
        ({"metadata": "crm"}, None, {"metadata": "crm"}), ({"metadata": [1]}, None, {"metadata": [1]}),
        ({"metadata": 3}, None, {"metadata": 3}), ({"metadata": None}, None, None), ({"metadata": {}}, None, None),
        ({"note": "\ud800"}, None, {"note": "\ud800"}), ({"id": "\ud900"}, None, {"id": "\ud900"}),
        ({"ID": 3, "Split": "Dev"}, "3", None),
    ],
)  # fmt: skip
def test_good_prompt_and_answer_are_never_lost_for_a_side_field(given, source_id, metadata):
    found = check({"prompt": SKY, "answer": "blue", **given})
    assert (found.prompt, found.answer, found.source_id) == (SKY, "blue", source_id)
    assert (None if found.metadata is None else json.loads(found.metadata)) == metadata
    assert found.split == ("validation" if "Split" in given else None)


def test_row_says_the_same_whether_it_was_read_at_once_with_others_or_alone(tmp_path):
    """Long text is looked at one by one, so what is beside it must be kept alike."""
    sides = {"id": 5, "split": "test", "metadata": {"b": 1, "a": None}, "note": None, "more": [1]}
    rows = [{"prompt": f"{SKY}{' ' * spaces}", "answer": "blue", **sides} for spaces in (0, 2000)]
    (part,) = read_landed(tiny.write_jsonl(tmp_path / "data.jsonl", rows))
    assert part.rows["record"].n_unique() == 1
    assert json.loads(part.rows["metadata"][0]) == {"note": None, "more": [1], "b": 1, "a": None}


def test_unknown_split_is_told_once_for_the_file(tmp_path):
    rows = [{"prompt": f"Number {n}?", "answer": "a", "split": ("later", "val", "never")[n % 3]} for n in range(30)]
    (report,) = land_files([tiny.write_jsonl(tmp_path / "data.jsonl", rows)], tmp_path / "landing")
    assert (report["good"], report["bad"]) == (30, [])
    (hint,) = report["hints"]
    assert hint.startswith(
        "split: 'later', 'never' is none of train, validation, test: these rows are split by content"
    )
    assert contents_of(tiny.write_jsonl(tmp_path / "fine.jsonl", [{**rows[1]}])).remarks == []


def test_rows_say_something_else_by_their_further_and_their_rejected_answers(tmp_path):
    plain = {"prompt": SKY, "answer": "blue"}
    rows = [
        plain,
        {**plain, "answer": ["blue", "azure"]},
        {**plain, "rejected": "green"},
        {**plain, "answer": ["blue"]},
    ]
    (part,) = read_landed(tiny.write_jsonl(tmp_path / "data.jsonl", rows))
    records = part.rows["record"].to_list()
    assert len(set(records)) == 3
    assert records[0] == records[3]

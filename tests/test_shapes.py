"""Rows of other shapes than {prompt, answer}, and folders of data sets, land as questions with answers."""

import json

import pytest
from typer.testing import CliRunner

from apt_assets.cli import app
from apt_assets.landing.land import land_files
from apt_assets.landing.records import contents_of, read_landed
from apt_assets.settings.experiment import UsageError
from tests import tiny

COLOURS = {"question": "Colour of the sky?", "choices": ["red", "blue"]}


def turn(role, content):
    return {"role": role, "content": content}


def landed(path):
    """([(prompt, answer, split, metadata)], [(field, reason)]) of a landed file."""
    parts = list(read_landed(path))
    rows = [r for part in parts for r in part.rows.select("prompt", "answer", "split", "metadata").iter_rows()]
    return rows, [(reject.field, reject.reason) for part in parts for reject in part.rejects]


def one(tmp_path, record):
    return landed(tiny.write_jsonl(tmp_path / "data.jsonl", [record]))


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        ([turn("user", " Sky? ")], "Sky?"),
        ([turn("user", [{"type": "text", "text": "S"}, {"type": "text", "text": "ky?"}])], "Sky?"),
        ([turn("system", "Be brief."), turn("user", "Sky?")], "Be brief.\n\nSky?"),
        (
            [turn("system", "Be brief."), turn("user", "Hello"), turn("assistant", "Yes?"), turn("user", "Sky?")],
            "Be brief.\n\nuser: Hello\n\nassistant: Yes?\n\nuser: Sky?",
        ),
    ],
)
def test_last_turn_of_a_chat_is_the_answer_and_what_stood_before_is_the_question(tmp_path, messages, prompt):
    record = {"messages": [*messages, turn("assistant", "blue")], "split": "test", "source": "web"}
    assert one(tmp_path, record) == ([(prompt, "blue", "test", '{"source": "web"}')], [])


@pytest.mark.parametrize("answer", [1, "B", "blue", " blue "])
def test_multiple_choice_is_asked_with_letters_whatever_names_the_answer(tmp_path, answer):
    prompt = "Colour of the sky?\nA. red\nB. blue"
    assert one(tmp_path, {**COLOURS, "answer": answer}) == ([(prompt, "B", None, None)], [])


def test_choice_whose_text_is_its_own_letter_is_no_contradiction(tmp_path):
    record = {"question": "First letter?", "choices": ["A", "B"], "answer": "A"}
    assert one(tmp_path, record)[0][0][:2] == ("First letter?\nA. A\nB. B", "A")


@pytest.mark.parametrize(
    ("record", "field", "reason"),
    [
        ({"messages": "hello"}, "messages", "must be a list of turns, got str"),
        ({"messages": []}, "messages", "must end with a user's and an assistant's turn, got none"),
        ({"messages": [turn("user", "Sky?")]}, "messages", "got user"),
        ({"messages": [turn("assistant", "blue")]}, "messages", "got assistant"),
        ({"messages": [turn("user", "a"), turn("system", "b")]}, "messages", "must end with"),
        (
            {"messages": [turn("user", "a"), turn("system", "b"), turn("user", "c"), turn("assistant", "d")]},
            "messages",
            "only be the first",
        ),
        ({"messages": ["hello"]}, "messages[0]", "must be an object with role and content"),
        ({"messages": [turn("narrator", "x"), turn("assistant", "y")]}, "messages[0].role", "must be one of"),
        ({"messages": [turn("tool", "x"), turn("assistant", "y")]}, "messages", "must end with a user's and an"),
        ({"messages": [turn("user", "x"), turn("assistant", " ")]}, "messages[1].content", "empty"),
        ({"messages": [turn("user", "x"), {"role": "assistant"}]}, "messages[1].content", "missing"),
        (
            {"messages": [turn("user", [{"type": "image_url"}]), turn("assistant", "y")]},
            "messages[0].content",
            "must be text, got list",
        ),
        ({"messages": [turn("user", "a\x00"), turn("assistant", "y")]}, "prompt", "holds a NUL character"),
        ({**COLOURS}, "answer", "missing"),
        ({**COLOURS, "answer": 2}, "answer", "must be 0 to 1 for 2 choices, got 2"),
        ({**COLOURS, "answer": -1}, "answer", "must be 0 to 1"),
        ({**COLOURS, "answer": True}, "answer", "must be text, got bool"),
        ({**COLOURS, "answer": "C"}, "answer", "is neither an index, a letter up to B nor one of the choices"),
        ({"question": "?", "choices": ["B", "A"], "answer": "A"}, "answer", "letter of one choice and the text of"),
        ({"question": "?", "choices": ["a", "a"], "answer": 0}, "choices", "the same text twice"),
        ({"question": "?", "choices": ["a"], "answer": 0}, "choices", "2 to 26"),
        ({"question": "?", "choices": ["a", 7], "answer": 0}, "choices[1]", "must be text, got int"),
        ({"question": None, "choices": ["a", "b"], "answer": 0}, "prompt", "missing"),
    ],
)
def test_row_of_a_bad_shape_is_rejected_with_field_and_reason(tmp_path, record, field, reason):
    rows, ((bad_field, why),) = one(tmp_path, record)
    assert rows == []
    assert bad_field == field
    assert reason in why


def test_rows_of_all_shapes_in_one_file_keep_their_order_and_lines(tmp_path):
    chat = {"messages": [turn("user", "Grass?"), turn("assistant", "green")]}
    plain = {"prompt": "Coal?", "answer": "black", "messages": "of a record with a prompt, kept as metadata"}
    path = tiny.write_jsonl(tmp_path / "data.jsonl", [plain, chat, {"messages": 3}, {**COLOURS, "answer": 0}, plain])
    (part,) = read_landed(path)
    assert part.rows["line"].to_list() == [1, 2, 4, 5]
    assert part.rows["answer"].to_list() == ["black", "green", "A", "black"]
    assert [reject.line for reject in part.rejects] == [3]


def test_same_chats_as_jsonl_and_as_parquet_are_the_same_data(tmp_path):
    import polars as pl

    rows = [{"messages": [turn("user", f"Number {n}?"), turn("assistant", str(n))], "id": n} for n in range(5)]
    tiny.write_jsonl(tmp_path / "chats.jsonl", rows)
    pl.DataFrame(rows).write_parquet(tmp_path / "chats.parquet")
    assert contents_of(tmp_path / "chats.jsonl").digest == contents_of(tmp_path / "chats.parquet").digest


# -- folders ---------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """A DatasetDict on disk: multiple choice with class labels, and a split held out."""
    from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

    features = Features(
        {"question": Value("string"), "choices": List(Value("string")), "answer": ClassLabel(names=["A", "B"])}
    )
    parts = {}
    for split, count in (("train", 6), ("test", 2)):
        rows = [{"question": f"{split} {n}?", "choices": ["no", "yes"], "answer": n % 2} for n in range(count)]
        parts[split] = Dataset.from_list(rows, features=features)
    DatasetDict(parts).save_to_disk(tmp_path / "quiz")
    return tmp_path / "quiz"


def test_saved_dataset_dict_lands_once_with_its_splits_and_class_names(saved, tmp_path):
    for _ in range(2):
        (report,) = land_files([saved], tmp_path / "landing")
    assert (report["file"], report["good"], report["bad"]) == (str(saved), 8, [])
    (file,) = (tmp_path / "landing").iterdir()
    assert file.name == report["landed"]
    assert file.name.startswith("quiz-")
    rows, _ = landed(file)
    assert ("train 1?\nA. no\nB. yes", "B", "train", None) in rows
    assert sorted(split for _, _, split, _ in rows) == ["test"] * 2 + ["train"] * 6


def test_one_dataset_of_a_saved_dict_is_split_by_content(saved, tmp_path):
    (report,) = land_files([saved / "train"], tmp_path / "landing")
    rows, _ = landed(tmp_path / "landing" / report["landed"])
    assert [split for _, _, split, _ in rows] == [None] * 6


def test_folder_of_parquet_shards_takes_splits_from_their_names_and_reports_bad_rows(tmp_path):
    import polars as pl

    folder = tmp_path / "shards" / "data"
    folder.mkdir(parents=True)
    pl.DataFrame({"prompt": ["a?", "b?"], "answer": ["1", ""]}).write_parquet(folder / "train-00000-of-00002.parquet")
    pl.DataFrame({"prompt": ["c?"], "answer": ["3"], "note": [7]}).write_parquet(
        folder / "train-00001-of-00002.parquet"
    )
    pl.DataFrame({"prompt": ["d?"], "answer": ["4"]}).write_parquet(folder / "test-00000-of-00001.parquet")
    (report,) = land_files([tmp_path / "shards"], tmp_path / "landing")
    rows, rejects = landed(tmp_path / "landing" / report["landed"])
    assert sorted(rows, key=str) == [
        ("a?", "1", "train", None),
        ("c?", "3", "train", '{"note": 7}'),
        ("d?", "4", "test", None),
    ]
    assert rejects == [("answer", "empty")]
    assert [bad["field"] for bad in report["bad"]] == ["answer"]


def test_split_of_an_unknown_name_or_a_folder_without_data_lands_nothing(saved, tmp_path):
    from datasets import DatasetDict

    DatasetDict({"half": DatasetDict.load_from_disk(saved)["test"]}).save_to_disk(tmp_path / "odd")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "data.parquet").write_bytes(b"PAR1")
    for folder, message in (("odd", "split 'half'"), ("empty", "neither"), ("broken", "cannot be read")):
        with pytest.raises(UsageError, match=message):
            land_files([saved, tmp_path / folder], tmp_path / "landing")
    assert not (tmp_path / "landing").exists()


def test_splits_of_a_folder_are_named_as_the_hub_names_them(saved, tmp_path):
    from datasets import DatasetDict

    given = DatasetDict.load_from_disk(saved)
    DatasetDict({"train_sft": given["train"], "dev": given["test"]}).save_to_disk(tmp_path / "named")
    (report,) = land_files([tmp_path / "named"], tmp_path / "landing")
    rows, _ = landed(tmp_path / "landing" / report["landed"])
    assert sorted(split for _, _, split, _ in rows) == ["train"] * 6 + ["validation"] * 2


def test_land_command_takes_a_folder(saved, make_experiment, tmp_path):
    found = CliRunner().invoke(app, ["land", str(saved), "--experiment", str(make_experiment()), "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)[0]["good"] == 8

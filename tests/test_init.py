"""`apt-assets init`: what is proposed for which data, and that what is written works."""

import json
import random
import re

import pytest
import yaml
from typer.testing import CliRunner

from apt_assets.cli import app
from apt_assets.settings.experiment import REPOSITORY, UsageError
from apt_assets.settings.reader import load_experiment
from apt_assets.start.answers import kind_of
from apt_assets.start.init import Given, init
from apt_assets.start.proposal import smallest_loss
from docs import first_session
from tests import tiny

draw = random.Random(3)
WORDS = ("the", "model", "reads", "long", "letters", "about", "loans", "and", "rates", "which", "nobody", "likes")


def some_words(count):
    return " ".join(draw.choice(WORDS) for _ in range(count))


def labelled(count=120):
    queues = {"Karten": "Karte", "Zahlungen": "Überweisung", "Konten": "Sparbuch"}
    rows = [(queue, thing, n) for n in range(count // 3) for queue, thing in queues.items()]
    return [{"prompt": f"Wo ist meine {thing}, Straße {n} in Köln?", "answer": queue} for queue, thing, n in rows]


def sums(count=90):
    return [
        {"prompt": f"What do {n} kg cost at {n % 7 + 1}?", "answer": f"{n * (n % 7 + 1)} EUR"} for n in range(count)
    ]


def letters(count=60):
    return [{"instruction": "Sum up.", "input": some_words(40), "output": f"{some_words(12)}."} for _ in range(count)]


def symptoms(count=80):
    named = ["fever", "cough", "head ache", "rash"]
    return [
        {"prompt": f"What has patient {n}?", "answer": ", ".join(draw.sample(named, 1 + n % 3))} for n in range(count)
    ]


def choices(count=50):
    return [
        {"question": f"What is {n} + 1?", "choices": [str(n), str(n + 1)], "answer": "AB"[n % 2]} for n in range(count)
    ]


def codes(count=70):
    return [
        {"prompt": some_words(9), "answer": f"ICD {draw.choice('ABC')}{draw.randrange(10**6)}"} for _ in range(count)
    ]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder in which someone stands, who has a home of their own for what is computed."""
    monkeypatch.setenv("APT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("APT_EXPERIMENT", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def apt(*arguments, code=0):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


@pytest.mark.parametrize(
    ("rows", "assessor", "said"),
    [
        (labelled(), "labels", "3 different answers in 120 rows: Karten, Zahlungen, Konten"),
        (sums(), "numeric", "such as 0 EUR, 2 EUR, 6 EUR"),
        (letters(), "overlap", "Free text"),
        (symptoms(), "set_f1", "The answers are lists"),
        (choices(), "labels", "the letter of a choice"),
        (codes(), "exact", "70 different ones in 70 rows"),
    ],
    ids=["German labels", "numbers", "long text", "lists", "multiple choice", "codes"],
)
def test_file_that_is_written_says_why_and_lands_and_plans(here, tiny_folder, rows, assessor, said):
    data = tiny.write_jsonl(here / "My data (2).jsonl", rows)
    shown = apt("init", "--data", data, "--model", tiny_folder / "policy", "--yes")
    assert "next: apt-assets land '" in shown  # quoted, for a shell
    text = (here / "experiment.yaml").read_text(encoding="utf-8")
    assert said in " ".join(text.replace("#", "").split())
    experiment = load_experiment(here / "experiment.yaml")
    assert (experiment.name, experiment.assessor.kind) == ("my-data-2", assessor)
    assert experiment.policy.max_new_tokens > max(len(str(row.get("answer", "A"))) for row in rows) // 8
    apt("land", data)
    planned = {one["stage"]: one for one in json.loads(apt("plan", 1, "--json"))}
    assert planned["domain_dataset"]["status"] == "missing"
    assert (here / "home" / "landing" / "my-data-2").is_dir()


def test_csv_of_another_encoding_with_odd_columns_and_splits_of_its_own(here, tiny_folder):
    lines = ["Question;Answer;Priorität;split"]
    lines += [f"Wer löst Fall {n}?;Team {n % 3};hoch;{('train', 'dev')[n % 2]}" for n in range(60)]
    (here / "fälle.csv").write_text("\n".join(lines), encoding="cp1252")
    given = ("init", "my.yaml", "--data", "fälle.csv", "--model", tiny_folder / "policy", "-y")
    assert "it looks like cp1252" in str(CliRunner().invoke(app, [str(one) for one in given]).exception)
    shown = apt(*given, "--encoding", "cp1252")
    assert "the rows name their split themselves: 30 train, 30 validation" in shown
    assert "no row is in test" in shown
    assert "next: apt-assets land -e my.yaml --encoding cp1252 'fälle.csv', then" in shown
    written = yaml.safe_load((here / "my.yaml").read_text())
    assert "validation" not in written["data"]
    assert written["name"] == "f-lle"


def test_questions_of_one_form_are_kept_and_the_file_says_how_many_would_leave(here, tiny_folder):
    rows = [{"prompt": f"Which of the queues takes ticket {n}?", "answer": "AB"[n % 2] * 3} for n in range(100)]
    apt("init", "--data", tiny.write_jsonl(here / "a.jsonl", rows), "--model", tiny_folder / "policy", "-y")
    assert load_experiment(here / "experiment.yaml").data.near_duplicate_words is None
    assert "of 100 rows are held-out questions but for a word" in (here / "experiment.yaml").read_text()


def test_rows_longer_than_the_model_reads_are_counted_before_anything_lands(here, tiny_folder):
    rows = [*letters(20), {"instruction": "Sum up.", "input": some_words(3), "output": "It is short."}]
    data = tiny.write_jsonl(here / "a.jsonl", rows)
    shown = apt("init", "--data", data, "--model", tiny_folder / "policy", "-y")
    assert "20 rows are longer than the 256 tokens that the model reads at once" in shown
    assert load_experiment(here / "experiment.yaml").training.max_length == 256


def test_questions_are_asked_with_what_is_proposed_and_an_answer_takes_its_place(here, tiny_folder):
    data = tiny.write_jsonl(here / "rows.jsonl", labelled())
    asked = {}

    def ask(question, proposed):
        asked[question.split(",")[0].split(":")[0]] = proposed
        return {"Your rows": str(data), "Name of the experiment": "mine"}.get(question.split(",")[0], proposed)

    told = []
    init(here / "experiment.yaml", Given(model=str(tiny_folder / "policy")), ask, told.append)
    assert list(asked) == ["Your rows", "Name of the experiment", "Recipe", "Assessor", "Said before each question"]
    assert asked["Assessor"] == "labels"
    assert asked["Said before each question"].endswith("nothing else: Karten, Zahlungen, Konten.")
    assert load_experiment(here / "experiment.yaml").name == "mine"
    assert told[:2] == [
        "rows.jsonl: JSON, a row a line, utf-8, fields prompt, answer; taken for prompt and answer",
        "120 rows can be used",
    ]


def test_fine_tuning_is_written_as_the_guide_tells(here, tiny_folder):
    guide = (REPOSITORY / "docs" / "guide" / "your-own-domain.md").read_text(encoding="utf-8")
    told = yaml.safe_load(re.search(r"```yaml\n(mining: {questions: 16}\n.*?)```", guide, re.DOTALL)[1])
    data = tiny.write_jsonl(here / "rows.jsonl", labelled(40))
    apt("init", "--data", data, "--model", tiny_folder / "policy", "--recipe", "fine-tuning", "-y")
    written = yaml.safe_load((here / "experiment.yaml").read_text(encoding="utf-8"))
    assert {name: {key: written[name][key] for key in its} for name, its in told.items()} == told
    assert load_experiment(here / "experiment.yaml").pairs.every_row


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "there is no terminal in which to ask"),
        (["--data", "nowhere.jsonl"], "no such file"),
        (["--data", "rows.jsonl", "--assessor", "label"], r"did you mean labels\?"),
        (["--data", "rows.jsonl", "--recipe", "fine-tunning"], r"did you mean fine-tuning\?"),
        (["--data", "rows.jsonl", "--assessor", "rubric"], "needs settings of its own"),
        (["--data", "rows.jsonl", "--name", "A B"], "--name: name: "),
        (["--data", "empty.jsonl"], "no row can be used"),
    ],
)
def test_what_cannot_be_used_is_said_and_nothing_is_written(here, options, message):
    tiny.write_jsonl(here / "rows.jsonl", labelled())
    tiny.write_jsonl(here / "empty.jsonl", [])
    result = CliRunner().invoke(app, ["init", *options])
    with pytest.raises(UsageError, match=message):
        raise result.exception
    assert not (here / "experiment.yaml").exists()


def test_file_that_is_there_is_never_written_over(here):
    (here / "experiment.yaml").write_text("name: mine\n")
    tiny.write_jsonl(here / "rows.jsonl", labelled())
    result = CliRunner().invoke(app, ["init", "--data", "rows.jsonl", "--yes"])
    assert "writes over nothing" in str(result.exception)
    assert (here / "experiment.yaml").read_text() == "name: mine\n"


@pytest.mark.parametrize(
    ("answers", "assessor"),
    [
        (["1", "2", "3"] * 20, "labels"),
        ([str(n) for n in range(60)], "numeric"),
        (["He came, saw the town, and left.", "She wrote, read it again, and slept."] * 3 + ["No."] * 2, "overlap"),
        (["是", "不是"] * 30, "labels"),
        (["yes"] * 4 + ["no"], "exact"),
    ],
)
def test_kind_of_answers_is_told_by_all_of_them(answers, assessor):
    assert kind_of(["?"] * len(answers), answers).assessor == assessor


@pytest.mark.parametrize(
    ("answers", "assessor", "tolerance"),
    [
        ([str(1500 + n) for n in range(60)], "numeric", 0.0),
        ([f"{n}.5 kg" for n in range(60)], "numeric", 0.01),
        ([f"{n:05}" for n in range(60)], "exact", None),
        ([f"{n},000" for n in range(1, 60)], "numeric", 0.0),
        ([*(f"{n}.5 kg" for n in range(60)), "05"], "numeric", 0.01),
    ],
    ids=["years", "measured", "codes", "thousands", "one odd one"],
)
def test_year_that_is_off_by_one_is_wrong_and_a_weight_may_be_a_little_off(
    here, tiny_folder, answers, assessor, tolerance
):
    rows = [{"prompt": f"What of {n}?", "answer": answer} for n, answer in enumerate(answers)]
    data = tiny.write_jsonl(here / "rows.jsonl", rows)
    shown = apt("init", "--data", data, "--model", tiny_folder / "policy", "--yes")
    found = load_experiment(here / "experiment.yaml").assessor
    assert found.kind == assessor
    if tolerance is not None:
        assert found.numeric.relative_tolerance == tolerance
        assert ("1% off counts as right" in shown) == (tolerance > 0)


def test_label_with_a_line_break_stays_inside_its_comment(here, tiny_folder):
    rows = [{"prompt": f"Row {n}?", "answer": "one\nname: other" if n % 2 else "two"} for n in range(40)]
    apt("init", "--data", tiny.write_jsonl(here / "rows.jsonl", rows), "--model", tiny_folder / "policy", "-y")
    assert load_experiment(here / "experiment.yaml").name == "rows"


def test_loss_that_so_many_items_show_is_the_gates_own():
    import polars as pl

    from apt_assets.method.gate import smallest_visible

    turned = [-1.0] * 15 + [1.0] * 15 + [0.0] * 970  # 3 % of a thousand
    seen = smallest_visible(pl.Series(turned), 0.95)
    assert smallest_loss(1000) == pytest.approx(seen, rel=0.01)
    assert smallest_loss(1833) == pytest.approx(0.01, abs=0.0002)


def test_commands_of_the_recording_are_ones_that_there_are_and_it_loads_nothing_from_elsewhere():
    recorded = first_session.PICTURE.read_text(encoding="utf-8")
    assert "http" not in recorded.replace("http://www.w3.org", "").replace("Rich https://www.textualize.io", "")
    for shown in first_session.session("embedded"):
        name = shown.command.split()[1]
        assert name in [one.name or one.callback.__name__ for one in app.registered_commands]
        assert shown.command.replace(" ", "&#160;") in recorded

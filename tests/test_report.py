"""The report: its numbers are the store's, it is safe to open, and no state of a project breaks it."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from jinja2 import UndefinedError

from apt_assets.drawing import plots
from apt_assets.method.measures import by_label, confusion, grade_counts
from apt_assets.method.weaknesses import changed_items, changed_rows, cluster_groups, label_groups, weaknesses
from apt_assets.report.evaluation import eval_results
from apt_assets.report.findings import findings
from apt_assets.report.html import render
from apt_assets.report.page import STATES, page, write_report
from resources.assessors.rubric import RubricSettings
from resources.store.tables import read_table
from schemas.tables import DomainItems, GeneralItems, Predictions
from tests import tiny


def stored(project, key, stage, file=None):
    manifest = project.store.pointed("tiny", key, stage)
    return read_table(project.store.open(manifest) / f"{file or stage}.parquet")


class Tags(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def titles(svg, tag):
    """What the marks of one kind say, in the order of drawing."""
    name = "{http://www.w3.org/2000/svg}"
    return [mark.find(f"{name}title").text for mark in ElementTree.fromstring(svg).iter(f"{name}{tag}")]


def test_page_tells_the_counts_of_the_tables(finished, project):
    found = write_report(project, finished / "report.html")
    assert found["served"] == "0002"
    assert found["stale"] == found["notes"] == []

    mined = {key: stored(project, key, "eval_predictions") for key in ("0001", "0002")}
    bad = pl.concat(mined.values()).filter(pl.col("grade") < 4)
    assert sum(entry["size"] for entry in found["weaknesses"]) == bad["row_id"].n_unique() > 0
    for key, table in mined.items():
        rates = [entry["rates"][key] for entry in found["weaknesses"] if key in entry["rates"]]
        assert sum(rate["bad"] for rate in rates) == table.filter(pl.col("grade") < 4).height
        assert found["plots"]["grade_histogram"][key] == grade_counts(table)

    (kept,) = [one for one in found["forgotten"] if (one["before"], one["after"]) == ("base", "0002")]
    before, after = (
        stored(project, "base", "base_scores", "general_items"),
        stored(project, "0002", "benchmark_scores", "general_items"),
    )
    right_before, right_after = (set(t.filter("correct")["item"]) for t in (before, after))
    (task,) = [part for part in kept["parts"] if part["part"] == "colours"]
    assert task["items"] == before.height
    assert task["forgotten"] == len(right_before - right_after)
    assert task["gained"] == len(right_after - right_before)

    pairs = stored(project, "0001", "preference_pairs")
    assert found["pairs"]["0001"]["kinds"] == dict(pairs["kind"].value_counts().iter_rows())
    assert sum(n for files in found["pairs"]["0001"]["files"].values() for n in files.values()) == pairs.height
    landed = (finished / "landing" / "colours.jsonl").read_text().splitlines()
    for row in found["pairs"]["0001"]["rows"]:
        assert json.loads(landed[row["line"] - 1])["prompt"] == row["prompt"]
        assert row["kind"] == "replay" or row["case"]

    text = Tags((finished / "report.html").read_text()).text
    assert found["verdict"].startswith("Serve the adapter of iteration 0002: validation ")
    for expected in (found["verdict"], f"{pairs.height}", "training.lora_rank", "torch"):
        assert expected in text
    adapter = project.store.pointed("tiny", "0002", "adapter_checkpoint").files["adapter_model.safetensors"]
    assert adapter in text


def test_settings_that_differ_from_their_default_come_first(project):
    found = findings(project)
    changed = [one["changed"] for one in found["settings"]]
    assert changed == sorted(changed, reverse=True)
    by_key = {one["key"]: one for one in found["settings"]}
    assert by_key["training.lora_rank"]["value"] == 2
    assert by_key["training.lora_rank"]["default"] == 16
    assert not by_key["training.beta"]["changed"]
    assert all(one["meaning"] for one in found["settings"])


def test_page_loads_nothing_and_runs_nothing(project):
    html = page(findings(project))
    tags = Tags(html)
    assert tiny.HOSTILE in tags.text  # the landed question is shown, as text
    assert not {"script", "img", "link", "iframe", "object"} & set(tags.tags)
    assert not [name for name, _ in tags.attributes if name in ("src", "href") or name.startswith("on")]
    assert not re.search(r"url\(|@import", html)
    # The meaning of one setting has an address in it, as text.
    others = html.replace(RubricSettings.model_fields["endpoint"].description, "")
    assert set(re.findall(r"https?://[^\"']*", others)) == {"http://www.w3.org/2000/svg"}
    assert ("name", "viewport") in tags.attributes
    assert "@media print" in html
    assert "prefers-color-scheme:dark" in html


def test_every_text_of_the_data_is_escaped(project):
    found = findings(project)
    plain = set(Tags(page(found)).tags)

    def poisoned(value, key=""):
        if isinstance(value, dict):
            return {k: poisoned(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [poisoned(v, key) for v in value]
        return value + tiny.HOSTILE if isinstance(value, str) and key not in ("state", "iteration", "shown") else value

    tags = Tags(page(poisoned(found)))
    assert set(tags.tags) == plain
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert tags.text.count(tiny.HOSTILE) > 50


def test_whoever_trains_on_pairs_is_told_that_a_study_compares_recipes(project):
    found = findings(project)
    assert "apt-assets study" in page(found)
    tuned = [one | ({"value": "sft"} if one["key"] == "training.objective" else {}) for one in found["settings"]]
    assert "apt-assets study" not in page({**found, "settings": tuned})


def test_value_that_a_page_names_and_nobody_gave_is_an_error():
    with pytest.raises(UndefinedError, match="'landed' is undefined"):
        render("empty_report.html", title="t", subtitle="s", experiment="")


@pytest.mark.parametrize(("landed", "steps"), [(False, 2), (True, 1)])
def test_empty_project_gives_a_page_that_says_what_to_run(tmp_path, tiny_folder, landed, steps):
    project = tiny.open_project(tmp_path, tiny_folder)
    if landed:
        tiny.land_hostile(tmp_path)
    write_report(project, tmp_path / "report.html")
    tags = Tags((tmp_path / "report.html").read_text())
    assert tags.tags.count("li") == steps
    assert "apt-assets run" in tags.text


def test_half_computed_project_shows_what_is_there_and_what_is_missing(tmp_path, tiny_folder):
    from apt_assets.engine.execute import run_stage

    project = tiny.open_project(tmp_path, tiny_folder)
    tiny.land_hostile(tmp_path)
    project.open_iteration("0001")
    for name in ("domain_dataset", "retrieval_index", "policy", "eval_predictions", "bad_cases"):
        run_stage(project, "0001", name, run_id="r")
    found = write_report(project, tmp_path / "report.html")
    assert found["verdict"].startswith("No adapter is promoted yet")
    missing = {(one["iteration"], one["stage"]): one["status"] for one in found["stale"]}
    assert missing["base", "heldout_rows"] == "missing"
    assert missing["0001", "neighbors"] == "missing"
    assert ("0001", "bad_cases") not in missing
    assert {entry["state"] for entry in found["weaknesses"]} == {"not asked again"}
    assert found["forgotten"] == []
    text = Tags((tmp_path / "report.html").read_text()).text
    assert "never computed" in text
    assert "No two sets of scores to compare yet." in text


def test_stale_stages_are_named_with_their_cause_and_shown_as_they_were(finished, tiny_folder):
    found = findings(tiny.open_project(finished, tiny_folder, assessor={"bad_below": 3}))
    (bad_cases,) = [one for one in found["stale"] if (one["iteration"], one["stage"]) == ("0001", "bad_cases")]
    assert bad_cases["status"] == "stale"
    assert bad_cases["causes"] == ["assessor.bad_below: 4 -> 3"]
    assert found["pairs"]["0001"]["rows"]
    assert "assessor.bad_below: 4 -> 3" in Tags(page(found)).text


def test_damaged_table_is_reported_and_the_rest_still_shown(finished, tiny_folder, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    project = tiny.open_project(tmp_path / "copy", tiny_folder)
    manifest = project.store.pointed("tiny", "0001", "preference_pairs")
    (project.store.open(manifest) / "preference_pairs.parquet").write_bytes(b"not parquet")
    found = findings(project)
    assert "0001" not in found["pairs"]
    assert found["pairs"]["0002"]["rows"]
    (note,) = found["notes"]
    assert note.startswith("preference_pairs of 0001")
    assert note in Tags(page(found)).text


def test_free_form_task_groups_bad_cases_by_the_stored_vectors(finished, tiny_folder, tmp_path):
    project = tiny.open_project(finished, tiny_folder, assessor={"labels": []})
    found = findings(project)
    assert found["closed"] is False
    assert found["notes"] == []
    bad = pl.concat([stored(project, key, "eval_predictions") for key in ("0001", "0002")]).filter(pl.col("grade") < 4)
    assert sum(entry["size"] for entry in found["weaknesses"]) == bad["row_id"].n_unique()
    assert 1 < len(found["weaknesses"]) <= 12
    assert findings(project)["weaknesses"] == found["weaknesses"]

    shutil.copytree(finished, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / ".apt" / "store" / "lancedb")
    lost = findings(tiny.open_project(tmp_path / "copy", tiny_folder, assessor={"labels": []}))
    assert lost["weaknesses"] == []
    assert "the bad cases are not grouped" in lost["notes"][0]


def test_command_writes_the_page_or_prints_its_data(finished, project, monkeypatch):
    monkeypatch.setenv("APT_HOME", str(finished))

    def apt(*arguments):
        command = [sys.executable, "-m", "apt_assets.cli", "report", *arguments, "-e", str(finished / "tiny.yaml")]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    written = apt(str(finished / "mine.html"))
    assert written.returncode == 0, written.stderr
    assert (finished / "mine.html").read_text().startswith("<!DOCTYPE html>")
    printed = apt("--json")
    assert json.loads(printed.stdout)["served"] == "0002"
    refused = apt(str(finished / "nowhere" / "report.html"))
    assert refused.returncode == 2
    assert "name a file in a folder that is there" in refused.stderr


# -- what the numbers are made of ------------------------------------------------------------------


def answers(*rows, schema=Predictions, **more):
    """Rows of (number, gold, said, grade) as Predictions."""
    content = [
        {
            "row_id": f"{number:016x}",
            "prompt": f"question {number}",
            "answer": gold,
            "also": None,
            "prediction": said,
            "grade": grade,
            "exact": gold == said,
            **more,
        }
        for number, gold, said, grade in rows
    ]
    return pl.DataFrame(content, schema=schema.empty().schema)


def test_weakness_is_cured_better_remains_or_worse_by_what_came_later():
    first = answers(
        (1, "a", "x", 1), (2, "a", "x", 1), (3, "b", "x", 1), (4, "b", "x", 2), (5, "c", "x", 1), (6, "d", "x", 1),
        (7, "e", "e", 5), (10, "f", "f", 5), (11, "f", "x", 1),
    )  # fmt: skip
    second = answers(
        (1, "a", "a", 5), (8, "a", "a", 5), (3, "b", "b", 5), (9, "b", "x", 1), (5, "c", "y", 1), (10, "f", "x", 1)
    )
    mined = {"0001": first, "0002": second}
    found = {one["name"]: one for one in weaknesses(mined, label_groups(pl.concat(mined.values())), 4)}
    assert {name: one["state"] for name, one in found.items()} == {
        "a": "cured", "b": "better", "c": "remains", "d": "not asked again", "f": "worse"
    }  # fmt: skip
    assert found["a"]["size"] == 2
    assert found["a"]["again"] == {"asked": 1, "right": 1}
    assert found["b"]["size"] == 3
    assert found["b"]["rates"] == {"0001": {"asked": 2, "bad": 2}, "0002": {"asked": 2, "bad": 1}}
    assert found["c"]["examples"][0]["last_answer"] == "y"
    assert found["d"]["examples"][0]["last_answer"] is None
    # What is bad is a setting, and what is right is not.
    later = {"0001": answers((1, "a", "x", 1)), "0002": answers((1, "a", "y", 3))}
    (again,) = (one["again"] for one in weaknesses(later, label_groups(pl.concat(later.values())), 3))
    assert again == {"asked": 1, "right": 0}


def test_card_of_an_adapter_that_is_not_scored_yet_has_no_scores():
    assert eval_results("colours", {}) == []


def test_held_out_rows_of_a_label_decide_before_mined_ones_do():
    mined = {"0001": answers((1, "a", "x", 1)), "0002": answers((1, "a", "a", 5))}
    heldout = (answers((11, "a", "x", 1), (12, "a", "x", 1)), answers((11, "a", "x", 1), (12, "a", "x", 2)))
    (found,) = weaknesses(mined, {f"{1:016x}": "a"}, 4, heldout)
    assert found["state"] == "remains"
    assert (found["heldout"]["before"]["mean"], found["heldout"]["after"]["n"]) == (1.0, 2)


@pytest.mark.parametrize(
    ("before", "after", "state"),
    [((0, 4), (0, 4), "not confirmed"), ((1, 4), (0, 4), "cured"), ((0, 4), (1, 4), "worse"), ((0, 4), (0, 0), None)],
)
def test_weakness_that_no_held_out_row_ever_showed_is_not_called_cured(before, after, state):
    mined = {"0001": answers((1, "a", "x", 1))}

    def heldout(bad, of):
        return answers(*((n, "a", "x", 1) if n < bad else (n, "a", "a", 5) for n in range(of)))

    (found,) = weaknesses(mined, {f"{1:016x}": "a"}, 4, (heldout(*before), heldout(*after)))
    assert found["state"] == (state or "not asked again")


def test_weakness_that_came_and_went_between_iterations_is_not_called_cured():
    mined = {"0001": answers((1, "a", "a", 5)), "0002": answers((2, "a", "x", 1)), "0003": answers((3, "a", "a", 5))}
    (found,) = weaknesses(mined, label_groups(pl.concat(mined.values())), 4)
    assert found["state"] == "not confirmed"


def test_every_state_of_a_weakness_has_its_meaning_on_the_page(project):
    found = findings(project)
    found["weaknesses"] = [found["weaknesses"][0] | {"state": state} for state in STATES]
    text = " ".join(Tags(page(found)).text.split())
    assert (
        f"{len(STATES)} weaknesses found, by gold label: 1 worse, 1 remains, 1 better, 1 cured, 1 not confirmed" in text
    )
    assert "not confirmed: no bad answer before, and none after" in text


def test_clusters_of_a_free_form_task_are_named_by_their_own_words():
    texts = [f"the invoice total number {n}" for n in range(8)] + [f"the melting point number {n}" for n in range(8)]
    rows = pl.DataFrame({"row_id": [f"{n:016x}" for n in range(16)], "prompt": texts})
    vectors = np.zeros((16, 4), np.float32)
    vectors[:8, 0] = vectors[8:, 1] = 1
    vectors[:, 2] = np.linspace(0, 0.01, 16)
    bad = set(rows["row_id"][:4]) | set(rows["row_id"][8:12])
    groups = cluster_groups(rows, bad, vectors)
    first, second = ({groups[row] for row in part} for part in (rows["row_id"][:8], rows["row_id"][8:]))
    assert (first, second) == ({"invoice, total, number"}, {"melting, point, number"})


def test_forgotten_is_what_was_right_and_now_is_wrong():
    before = answers((1, "a", "a", 5), (2, "a", "x", 1), (3, "b", "b", 4), schema=DomainItems, split="test")
    after = answers((1, "a", "x", 1), (2, "a", "a", 5), (4, "b", "x", 1), schema=DomainItems, split="test")
    validation, test = changed_rows(before, after)
    assert validation["items"] == 0
    assert {key: test[key] for key in ("items", "right_before", "forgotten", "gained")} == {
        "items": 2, "right_before": 1, "forgotten": 1, "gained": 1
    }  # fmt: skip
    assert [(row["question"], row["before"], row["after"]) for row in test["examples"]] == [("question 1", "a", "x")]

    def items(*correct):
        rows = [("t", n, right, 1.0 if right else -1.0, -1.0) for n, right in enumerate(correct)]
        return pl.DataFrame(rows, schema=GeneralItems.empty().schema, orient="row")

    (task,) = changed_items(items(True, True, False), items(False, True, True))
    assert (task["forgotten"], task["gained"]) == (1, 1)
    assert task["examples"] == [{"item": 0, "before": 1.0, "after": -1.0}]


def test_label_rates_compare_the_same_questions_only():
    before = answers((1, "Red", "x", 1), (2, "red", "red", 5), (3, "blue", "x", 1))
    after = answers((1, "Red", "Red", 5), (2, "red", "red", 5), (4, "blue", "blue", 5))
    assert by_label(before, after, 4) == [
        {"label": "red", "n": 2, "bad_before": 0.5, "bad_after": 0.0, "exact_before": 0.5, "exact_after": 1.0}
    ]
    svg = plots.label_rates(by_label(before, after, 4), "base", "0001")
    assert titles(svg, "circle")[:4] == [
        "red, bad cases, base: 50.0% of 2",
        "red, bad cases, 0001: 0.0% of 2",
        "red, exactly right, base: 50.0% of 2",
        "red, exactly right, 0001: 100.0% of 2",
    ]


def test_answer_that_is_another_of_several_golds_is_not_confused():
    table = answers((1, "red", "crimson", 5), (2, "red", "blue", 1)).with_columns(
        also=pl.Series(['["crimson"]', None]), exact=pl.Series([True, False])
    )
    found = confusion(table, ["blue", "red"])
    assert found == {"gold": ["red"], "said": ["red", "other labels"], "counts": [[1, 1]]}


def test_confusion_counts_every_answer_once():
    said = ["red", "a red one", "red or blue", "no idea", "green", "light blue"]
    table = answers(
        *((n, gold, text, 1) for n, (gold, text) in enumerate(zip(["red"] * 4 + ["green", "blue"], said, strict=True)))
    )
    found = confusion(table, ["blue", "green", "light blue", "red"], most=1)
    assert found == {
        "gold": ["red", "other labels"],
        "said": ["red", "other labels", "several labels", "no label"],
        "counts": [[2, 0, 1, 1], [0, 2, 0, 0]],
    }
    cells = titles(plots.confusion_table(found, "0001"), "rect")
    assert sum(int(cell.rsplit(" ", 1)[1]) for cell in cells) == table.height
    assert "gold red, said several labels: 1" in cells


def test_bars_of_the_grade_histogram_are_as_high_as_their_share():
    counts = {"0001": {1: 30, 2: 0, 3: 0, 4: 0, 5: 10}, "0002": {1: 5, 2: 0, 3: 0, 4: 0, 5: 5}}
    svg = plots.grade_histogram(counts)
    assert titles(svg, "rect")[0] == "0001, grade 1: 30 of 40"
    heights = [float(bar.get("height")) for bar in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}rect")]
    assert heights[0] == pytest.approx(3 * heights[4], abs=0.2)
    assert heights[5] == heights[9] == pytest.approx(2 * heights[4], abs=0.2)
    assert heights[1] == 0
    with pytest.raises(ValueError, match="at most 4"):
        plots.grade_histogram({str(n): counts["0001"] for n in range(5)})


def test_curves_and_scores_are_drawn_where_the_numbers_are(project):
    found = findings(project)
    log = stored(project, "0001", "adapter_checkpoint", "training_log")
    assert found["plots"]["curves"]["0001"] == log.to_dicts()
    svg = plots.training_curves({"0001": log.to_dicts()})
    first, last = log.row(0, named=True), log.row(-1, named=True)
    says = f"0001, loss, nats: {first['loss']:.3g} at step {first['step']}, {last['loss']:.3g} at step {last['step']}"
    assert titles(svg, "polyline")[0] == says
    points = ElementTree.fromstring(svg).find(".//{http://www.w3.org/2000/svg}polyline").get("points").split()
    heights = np.array([float(point.split(",")[1]) for point in points])
    slope, start = np.polyfit(log["loss"].to_numpy(), heights, 1)
    assert slope < 0
    # A tenth of a pixel is what points are rounded to.
    assert np.abs(slope * log["loss"].to_numpy() + start - heights).max() < 0.1

    scored = plots.scores_by_iteration(found["iterations"])
    general = found["iterations"][2]["scores"]["general"]["all"]["accuracy"]
    expected = f"0002, general: {general['mean']:.1%} [{general['low']:.1%}, {general['high']:.1%}] of {general['n']}"
    assert expected in titles(scored, "circle")


def test_report_of_many_iterations_has_a_column_for_the_last_ones_says_so_and_draws_all(project):
    found = findings(project)
    entry = found["iterations"][-1]
    more = [f"{number:04d}" for number in range(3, 201)]
    found["iterations"] += [{**entry, "iteration": key} for key in more]
    found["pairs"] |= dict.fromkeys(more, found["pairs"]["0002"])
    found["stale"] = [{"iteration": k, "stage": "gate", "status": "stale", "causes": ["x"]} for k in more]
    text = page(found)
    assert '<th class="n">0200</th>' in text
    assert '<th class="n">0193</th>' in text
    assert '<th class="n">0192</th>' not in text
    assert "Iteration 0200: " in text
    assert "Iteration 0192: " not in text
    assert "192 earlier iterations are not shown" in text
    assert "158 more" in text, "198 stale stages, of which 40 are listed"


def test_plot_of_many_iterations_names_as_many_as_have_room_and_its_line_goes_through_all(project):
    entry = findings(project)["iterations"][-1]
    svg = plots.scores_by_iteration([{**entry, "iteration": f"{number:04d}"} for number in range(1, 201)])
    tree = ElementTree.fromstring(svg)
    names = [text.text for text in tree.iter("{http://www.w3.org/2000/svg}text") if re.fullmatch("[0-9]{4}", text.text)]
    assert len(names) <= 9
    assert names[-1] == "0200"
    line = tree.find(".//{http://www.w3.org/2000/svg}polyline")
    assert len(line.get("points").split()) == 200

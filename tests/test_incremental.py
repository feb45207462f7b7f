"""After an edit only what is stale is recomputed, down to the row. Each test starts from a copy of a
project in which one iteration is up to date; every training question is asked."""

import json
import os
import random
import re
import shutil
import subprocess
import sys

import dagster as dg
import pytest
import yaml

from apt_assets.engine.display import Display
from apt_assets.engine.execute import run_stage
from apt_assets.orchestration.run import run_loop
from apt_assets.project import Project
from apt_assets.world.code import CodeDigests
from tests import tiny

pytestmark = pytest.mark.slow("loop")

ROWS = 60


class Lab:
    """A project with its own models and tasks, and what its last run did."""

    def __init__(self, home, monkeypatch):
        self.home = home
        monkeypatch.setenv("APT_HOME", str(home))
        self.set()

    def set(self, **changes):
        content = yaml.safe_load((self.home / "base.yaml").read_text())
        for section, values in changes.items():
            content[section] = {**content.get(section, {}), **values}
        path = self.home / "lab.yaml"
        text = yaml.safe_dump(content)
        for name in ("policy", "encoder", "tasks"):
            text = text.replace(f"HOME/{name}", str(self.home / name))
        path.write_text(text)
        self.project = Project.open(path)

    def run(self, iterations=1):
        """({kind: rows or steps computed}, {(iteration, stage) computed})."""
        before = len(self.journal())
        result = run_loop(self.project, iterations, Display())
        assert result.passed, result.reason
        done: dict[str, int] = {}
        computed = set()
        for event in self.journal()[before:]:
            if event["event"] == "computed":
                computed.add((event["iteration"], event["stage"]))
                rows = {kind: n["computed"] for kind, n in event["work"].items() if isinstance(n, dict)}
                for kind, n in {**rows, "steps": event["work"].get("steps", 0)}.items():
                    done[kind] = done.get(kind, 0) + n
        assert computed == set(result.computed)
        return {kind: n for kind, n in done.items() if n}, computed

    def journal(self):
        path = self.project.store.root / "journal.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def data(self):
        return self.project.landing / "colours.jsonl"

    def rows(self, split):
        """Prompts of a split of iteration 1."""
        from resources.store.tables import read_table

        manifest = self.project.store.pointed("tiny", "0001", "domain_dataset")
        return read_table(self.project.store.open(manifest) / f"{split}.parquet")["prompt"].to_list()

    def planned(self, **changes):
        """What `plan` says beforehand that the edit will cost, where it is exact."""
        from apt_assets.loop.work import total, work_of

        planner = self.project.planner()
        works = [work_of(self.project, planner, plan) for plan in planner.plan(1)]
        return total([work for work in works if work.exact]).amounts


@pytest.fixture(scope="module")
def computed_home(tmp_path_factory, tiny_folder):
    home = tmp_path_factory.mktemp("computed")
    for name in ("policy", "encoder", "tasks"):
        shutil.copytree(tiny_folder / name, home / name)
    content = {
        "name": "tiny",
        "data": {"validation": 0.2, "test": 0.2, "near_duplicate_words": None},
        "policy": {"model": "HOME/policy", "dtype": "float32", "max_new_tokens": 4},
        "retrieval": {"encoder": "HOME/encoder", "per_case": 1},
        "mining": {"questions": None},
        "training": {"batch_size": 4, "lora_rank": 2, "lora_alpha": 4, "warmup_steps": 0},
        "benchmarks": {"folder": "HOME/tasks", "tasks": {"colours": None}},
        "gate": tiny.OPEN_GATE,
    }
    (home / "base.yaml").write_text(yaml.safe_dump(content))
    tiny.write_jsonl(home / "landing" / "colours.jsonl", tiny.domain_rows(ROWS))
    with pytest.MonkeyPatch.context() as patch:
        done, _ = Lab(home, patch).run()
    assert all(done[kind] > 0 for kind in ("answers", "grades", "embeddings", "steps", "scores"))
    return home


@pytest.fixture
def lab(computed_home, tmp_path, monkeypatch):
    shutil.copytree(computed_home, tmp_path / "home")
    return Lab(tmp_path / "home", monkeypatch)


AFTER_TRAINING = {("0001", name) for name in ("adapter_checkpoint", "benchmark_scores", "gate", "promoted_adapter")}


def test_nothing_changed_computes_nothing(lab):
    assert lab.run() == ({}, set())


def test_run_that_changes_nothing_opens_dagster_only_if_its_log_changed_since(lab, monkeypatch):
    import dagster as dg

    from apt_assets.orchestration import run as loop

    opened, real = [], loop.Dagster
    monkeypatch.setattr(loop, "Dagster", lambda *given: opened.append(given) or real(*given))
    lab.run()
    assert opened == []

    instance = real(lab.project, print).instance
    instance.wipe_assets([dg.AssetKey("bad_cases")])
    lab.run()
    assert len(opened) == 1
    told = instance.fetch_materializations(dg.AssetRecordsFilter(dg.AssetKey("bad_cases")), limit=1).records
    assert told[0].asset_materialization.metadata["status"].value == "hit"
    lab.run()
    assert len(opened) == 1


def test_appended_rows_are_the_only_ones_answered_graded_and_embedded(lab):
    before = {split: set(lab.rows(split)) for split in ("train", "validation", "test")}
    tiny.write_jsonl(lab.data, tiny.domain_rows(ROWS + 6))
    run_stage(lab.project, "base", "heldout_rows", run_id="r")
    planned = lab.planned()
    done, _ = lab.run()
    new = {split: len(set(lab.rows(split)) - rows) for split, rows in before.items()}
    assert sum(new.values()) == 6
    assert done["embeddings"] == new["train"] > 0
    held_out = new["validation"] + new["test"]
    # The new adapter has to answer all held-out questions; the base model, which base_scores and mining
    # ask, only the new ones.
    assert done["answers"] == new["train"] + held_out + len(lab.rows("validation")) + len(lab.rows("test"))
    assert planned["answers"] == held_out
    assert done["scores"] == 5, "the new adapter on five items; the base model keeps its scores"


def test_new_file_opens_an_iteration_that_embeds_only_its_rows(lab):
    tiny.write_jsonl(lab.project.landing / "more.jsonl", tiny.domain_rows(ROWS + 6)[ROWS:])
    _, computed = lab.run(2)
    assert ("0001", "adapter_checkpoint") not in computed
    assert ("0002", "adapter_checkpoint") in computed
    manifest = lab.project.store.pointed("tiny", "0002", "retrieval_index")
    assert manifest.work["embeddings"]["reused"] == len(lab.rows("train"))
    assert 0 < manifest.work["embeddings"]["computed"] < 6


def test_row_lost_from_lancedb_is_noticed_by_the_stage_that_needs_it_and_embedded_again(lab):
    import lancedb

    name = lab.project.store.pointed("tiny", "0001", "retrieval_index").facts["vectors"]
    lost = lab.rows("train")[0]
    lancedb.connect(lab.project.store.root / "lancedb").open_table(name).delete(f"text = '{lost}'")
    assert lab.run() == ({}, set()), "nobody needs it"
    lab.set(retrieval={"per_case": 2})
    done, computed = lab.run()
    assert {("0001", "retrieval_index"), ("0001", "neighbors")} <= computed
    assert done["embeddings"] == 1
    assert len(list((lab.project.store.root / "quarantine").iterdir())) == 1


def test_gc_removes_vectors_of_withdrawn_rows_and_tables_of_pools_as_there_used_to_be(lab):
    from apt_assets.loop.gc import what_to_keep
    from resources.store.collect import remove_vectors
    from resources.store.store import Collected

    def collect(dry_run):
        # Not the whole of gc: this process holds the lock of its run.
        store, found = lab.project.store, Collected()
        kept = what_to_keep(lab.project, 1).vectors
        remove_vectors(store.root / "lancedb", store.vectors, kept, found, really=not dry_run)
        return found

    before = set(lab.rows("train"))
    tiny.write_jsonl(lab.data, tiny.domain_rows(ROWS // 4))
    lab.run()
    (lab.project.store.root / "lancedb" / "index-0123456789abcdef.lance").mkdir()
    gone = len(before - set(lab.rows("train")))
    assert gone > len(before) / 2
    would = collect(dry_run=True)
    assert would.removed == {"vector tables": 1, "vectors": gone}
    assert collect(dry_run=False) == would
    assert would.bytes > 0
    assert not (lab.project.store.root / "lancedb" / "index-0123456789abcdef.lance").exists()
    assert lab.run() == ({}, set())


def test_threshold_change_does_not_regenerate_predictions(lab):
    lab.set(assessor={"bad_below": 2})
    done, computed = lab.run()
    assert ("0001", "eval_predictions") not in computed
    assert ("0001", "bad_cases") in computed
    # What the new adapter answers on held-out rows is new; if the same rows are bad, nothing is.
    assert done.get("answers", 0) in (0, len(lab.rows("validation")) + len(lab.rows("test")))
    assert "embeddings" not in done


def changed_code(monkeypatch, module):
    real = CodeDigests.closure
    monkeypatch.setattr(
        CodeDigests,
        "closure",
        lambda self, start: {k: "0" * 16 if k == module else v for k, v in real(self, start).items()},
    )


def test_rubric_change_grades_every_row_anew_and_generates_nothing(lab, monkeypatch):
    from resources.assessors import labels

    changed_code(monkeypatch, "resources.assessors.labels")
    real = labels.grade
    bad = {2: 1, 3: 2}
    monkeypatch.setattr(labels, "grade", lambda *row: bad.get(real(*row), real(*row)))
    done, computed = lab.run()
    heldout = len(lab.rows("validation")) + len(lab.rows("test"))
    assert ("0001", "eval_predictions") in computed
    # The adapter's answers are graded too; those that are the base model's as well, only once.
    assert done["grades"] >= len(lab.rows("train")) + heldout
    assert ("0001", "preference_pairs") in computed
    assert set(done) == {"grades"}, "the same rows are bad, so what the trainer reads is the same"
    mined = lab.project.store.pointed("tiny", "0001", "eval_predictions").work
    assert mined["answers"]["computed"] == 0
    assert mined["grades"] == {"reused": 0, "computed": len(lab.rows("train"))}


def test_comments_and_docstrings_edited_everywhere_change_no_stage(tmp_path):
    from apt_assets.engine.stage import STAGES
    from apt_assets.settings.experiment import REPOSITORY

    for package in ("apt_assets", "resources", "schemas"):
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    before = {name: CodeDigests(tmp_path).closure(stage.code) for name, stage in STAGES.items()}
    assert before == {name: CodeDigests(REPOSITORY).closure(stage.code) for name, stage in STAGES.items()}
    edited = 0
    for path in tmp_path.rglob("*.py"):
        text = path.read_text()
        spoken = re.sub(r'^( *(?:""".+)?)"""$', r'\1 Edited."""', text, flags=re.MULTILINE)
        path.write_text("# edited\n" + re.sub(r"^( +)return\b", r"\1# why\n\1return", spoken, flags=re.MULTILINE))
        edited += path.read_text() != "# edited\n" + text
    assert edited > 30
    assert {name: CodeDigests(tmp_path).closure(stage.code) for name, stage in STAGES.items()} == before


def test_helper_edited_to_the_same_result_runs_its_stage_and_cuts_off(lab, monkeypatch):
    changed_code(monkeypatch, "apt_assets.method.pairing")
    assert lab.run() == ({}, {("0001", "preference_pairs")})


def steps_of_last_run():
    instance = dg.DagsterInstance.get()
    return {step.step_key for step in instance.get_run_step_stats(instance.get_runs(limit=1)[0].run_id)}


def test_run_in_dagster_has_the_steps_of_what_is_out_of_date_and_no_others(lab, monkeypatch):
    scored = {"benchmark_scores", "gate", "promoted_adapter"}
    changed_code(monkeypatch, "apt_assets.method.pairing")
    lab.run()
    assert steps_of_last_run() == {"preference_pairs", "adapter_checkpoint", *scored}
    lab.set(gate={"resamples": 1001})
    assert lab.run() == ({}, {("0001", "gate")})
    assert steps_of_last_run() == scored, "the gate is a check of the first"


def test_beta_change_trains_and_scores_only(lab):
    lab.set(training={"beta": 0.7})
    done, computed = lab.run()
    assert computed <= AFTER_TRAINING
    assert ("0001", "benchmark_scores") in computed
    assert set(done) <= {"steps", "answers", "grades", "scores"}
    assert done["answers"] == len(lab.rows("validation")) + len(lab.rows("test"))


def test_one_item_of_a_task_edited_scores_that_item_only(lab):
    path = lab.home / "tasks" / "colours.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0].replace("sky", "wide sky"), *lines[1:]]) + "\n")
    # The adapter's are not known before it is: its anchor texts are screened against the items anew.
    assert lab.planned()["scores"] == 1
    done, computed = lab.run()
    assert done == {"scores": 2}, "by the base model and by the adapter"
    screened = ("0001", "screened_texts")
    assert computed <= {("base", "base_scores"), screened, ("0001", "benchmark_scores"), ("0001", "gate")}


def test_corrected_answer_costs_its_own_grade_and_no_generation_in_mining(lab):
    prompt = lab.rows("train")[0]
    lines = lab.data.read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    (row,) = [row for row in rows if row["prompt"] == prompt]
    row["answer"] = "green" if row["answer"] != "green" else "red"
    tiny.write_jsonl(lab.data, rows)
    lab.run()
    mined = lab.project.store.pointed("tiny", "0001", "eval_predictions").work
    assert mined["answers"]["computed"] == 0
    assert mined["grades"] == {"reused": len(lab.rows("train")) - 1, "computed": 1}
    assert lab.project.store.pointed("tiny", "0001", "retrieval_index").work["embeddings"]["computed"] == 0


def test_two_runs_at_once_do_each_unit_of_work_once(computed_home, tmp_path, monkeypatch):
    home = tmp_path / "home"
    shutil.copytree(computed_home, home, ignore=shutil.ignore_patterns(".apt", "dagster_home"))
    lab = Lab(home, monkeypatch)
    command = [sys.executable, "-m", "apt_assets.cli", "run", "-e", str(home / "lab.yaml"), "--iterations", "1"]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
    computed = [(e["iteration"], e["stage"]) for e in lab.journal() if e["event"] == "computed"]
    assert len(computed) == len(set(computed)) == 18
    assert lab.run() == ({}, set())


def test_model_overwritten_in_place_with_its_old_size_and_time_is_noticed(lab, tmp_path):
    path = lab.home / "policy" / "model.safetensors"
    stat = path.stat()
    tiny.make_policy(tmp_path / "other", seed=1)
    path.write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    done, computed = lab.run()
    assert done["answers"] >= len(lab.rows("train"))
    assert {("base", "base_scores"), ("0001", "policy"), ("0001", "eval_predictions")} <= computed
    assert "embeddings" not in done


def test_settings_flipped_and_back_are_all_reused(lab):
    lab.set(training={"beta": 0.7}, policy={"max_new_tokens": 3})
    assert lab.run()[0]["answers"]
    lab.set()
    assert lab.run() == ({}, set())


def test_shuffled_file_costs_its_digest_and_nothing_else(lab):
    lines = lab.data.read_text().splitlines()
    random.Random(0).shuffle(lines)
    lab.data.write_text("\n".join(lines) + "\n")
    before = len(lab.journal())
    assert lab.run() == ({}, set())
    assert {event["event"] for event in lab.journal()[before:]} <= {"hit"}


def test_stage_that_reads_what_it_does_not_declare_is_an_error_not_a_wrong_reuse(lab, monkeypatch):
    import dataclasses

    from apt_assets.engine.scope import UndeclaredRead
    from apt_assets.engine.stage import STAGES

    def reading(what):
        stage = dataclasses.replace(STAGES["bad_cases"], compute=what, libraries=("polars", "numpy"))
        monkeypatch.setitem(STAGES, "bad_cases", stage)
        run_stage(lab.project, "0001", "bad_cases", run_id="r")

    for what, named in (
        (lambda step: step.settings.training.beta, "the setting training"),
        (lambda step: step.read("domain_dataset", "train"), "domain_dataset"),
        (lambda step: step.outside("base_model"), "base_model"),
        (lambda step: step.producer("previous_adapter"), "previous_adapter"),
        (lambda step: step.iteration, "iteration"),
        (lambda step: step.landed(), "landing_files"),
    ):
        with pytest.raises(UndeclaredRead, match=named):
            reading(what)

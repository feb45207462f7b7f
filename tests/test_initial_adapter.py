"""A loop that starts from an adapter made elsewhere, in place of the bare base model."""

import importlib
import json
import os
import shutil
import warnings
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from safetensors.torch import load_file, save_file

from apt_assets.engine.display import Display
from apt_assets.engine.execute import run_stage
from apt_assets.engine.step import StageBlocked
from apt_assets.orchestration.instance import Dagster
from apt_assets.orchestration.ledger import Ledger
from apt_assets.orchestration.run import run_loop
from apt_assets.report.explain import as_text, explain
from apt_assets.report.export import export
from apt_assets.report.findings import findings
from apt_assets.rows import policy as policies
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.iterations import BASE
from resources.model.adapter import problem_with
from resources.model.policy import load_policy
from resources.store.digest import digest_file, digest_json
from resources.training.trainer import train_adapter
from tests import tiny
from tests.test_trainer import RECIPE, pairs

pytestmark = pytest.mark.slow("loop")

PARTS = ("adapter_config.json", "adapter_model.safetensors")
# The steps are so small that what is trained is what it starts from. The targets are those of a fresh adapter.
SETTINGS = {
    "policy": {"initial_adapter": "specialist"},
    "training": {"learning_rate": 1e-9, "lora_rank": 7, "lora_targets": ["of_no_model"]},
}


def open_project(home, tiny_folder, **changes):
    changed = {section: {**SETTINGS.get(section, {}), **values} for section, values in changes.items()}
    return tiny.open_project(home, tiny_folder, **{**SETTINGS, **changed})


def run(project, iterations=1):
    result = run_loop(project, iterations, Display())
    assert result.passed, result.reason
    return result


@pytest.fixture(scope="module")
def begun(tiny_folder, tmp_path_factory):
    """The home of a project with one iteration from the adapter in specialist/: to be copied, not changed."""
    home = tmp_path_factory.mktemp("begun")
    tiny.make_adapter(home / "specialist", tiny_folder / "policy")
    tiny.write_jsonl(home / "landing" / "colours.jsonl", tiny.domain_rows(60))
    run(open_project(home, tiny_folder))
    return home


@pytest.fixture
def home(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def project(home, tiny_folder):
    return open_project(home, tiny_folder)


def table(project, key, stage, file=None):
    manifest = project.planner().stage(key, stage).manifest
    return pl.read_parquet(project.artifact(manifest) / f"{file or stage}.parquet")


def said_by(project, adapter, prompts):
    system_prompt = project.experiment.policy.system_prompt
    policy = load_policy(project.models.base_model, adapter, dtype="float32", system_prompt=system_prompt)
    return tiny.answers(policy, prompts, max_new_tokens=4, batch_tokens=1024)


def statuses(project):
    return {(p.iteration, p.stage): p.status for p in project.planner().plan(1)}


def overwrite(home, tiny_folder, seed):
    """Another adapter in the same files, of the same size and time."""
    weights = home / "specialist" / PARTS[1]
    before, size = weights.stat(), weights.stat().st_size
    tiny.make_adapter(home / "specialist", tiny_folder / "policy", seed=seed)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.stat().st_size == size


# -- what starts from it -------------------------------------------------------------------------------


def test_scores_of_the_start_and_mined_answers_are_those_of_base_and_adapter(project, home):
    for key, stage, file in ((BASE, "base_scores", "domain_items"), ("0001", "eval_predictions", None)):
        rows = table(project, key, stage, file)
        prompts, said = rows["prompt"].to_list(), rows["prediction"].to_list()
        assert said == said_by(project, home / "specialist", prompts)
        assert said != said_by(project, None, prompts)
    policy = project.artifact(project.planner().stage("0001", "policy").manifest) / "policy.json"
    assert json.loads(policy.read_text())["adapter"] == digest_json(
        [digest_file(home / "specialist" / part) for part in PARTS]
    )


def test_training_goes_on_from_it_against_itself_as_reference_and_keeps_its_rank_and_targets(project, home):
    trained = project.artifact(project.planner().stage("0001", "adapter_checkpoint").manifest)
    start, end = (load_file(folder / PARTS[1]) for folder in (home / "specialist", trained))
    assert start.keys() == end.keys()
    assert all((start[name] - end[name]).abs().max() < 1e-5 for name in start)
    assert any(not start[name].equal(end[name]) for name in start), "it was trained"
    assert json.loads((trained / PARTS[0]).read_text())["r"] == 2
    assert table(project, "0001", "adapter_checkpoint", "training_log")["margin"][0] == pytest.approx(0, abs=1e-5)


def test_gate_compares_with_it_and_says_so_wherever_people_read_of_the_start(project, tmp_path):
    checks = project.planner().verdict("0001")["checks"]
    assert [check["against"] for check in checks] == ["the initial adapter"] * 2
    found = findings(project)
    assert found["start"] == "the initial adapter"
    assert "(initial adapter " in found["verdict"]
    export(project, tmp_path / "out", 1, "adapter")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| benchmark | initial adapter | this |" in card
    assert "Continued from the initial adapter" in card
    assert "lora_rank" not in card, "it is not what the adapter has"


def test_exported_adapter_is_complete_on_the_base_model_alone(project, home, tmp_path):
    rows = table(project, "0001", "benchmark_scores", "domain_items")
    export(project, tmp_path / "out", 1, "adapter")
    shutil.rmtree(home / "specialist")
    assert said_by(project, tmp_path / "out", rows["prompt"].to_list()) == rows["prediction"].to_list()


def test_dagster_is_told_which_adapter_the_first_iteration_starts_from(project, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(project.dagster_home))
    instance, expected = Dagster(project, Display()).instance, project.identity("initial_adapter")
    ledger = Ledger(project, instance)
    assert ledger.source_version("previous_adapter", "0001") == expected
    for asset, partition in (("previous_adapter", ["0001"]), ("initial_adapter", None)):
        wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=partition)
        (record,) = instance.fetch_observations(wanted, limit=9).records
        assert record.asset_observation.tags["dagster/data_version"] == expected
    instance.dispose()


# -- its content decides -------------------------------------------------------------------------------


def test_overwritten_in_place_makes_stale_what_starts_from_it_and_put_back_all_is_reused(project, home, tiny_folder):
    kept = {part: (home / "specialist" / part).read_bytes() for part in PARTS}
    before = project.identity("initial_adapter")
    overwrite(home, tiny_folder, seed=1)
    after = project.identity("initial_adapter")
    planner = project.planner()
    assert planner.stage("0001", "policy").causes == [f"previous_adapter: {before[:8]} -> {after[:8]}"]
    assert planner.stage(BASE, "base_scores").causes == [f"initial_adapter: {before[:8]} -> {after[:8]}"]
    assert f"because previous_adapter: {before[:8]} -> {after[:8]}" in as_text(explain(project, "policy", "0001"))
    changed = {where: status for where, status in statuses(project).items() if status != "fresh"}
    assert {where for where, status in changed.items() if status == "stale"} == {
        (BASE, "base_scores"),
        (BASE, "anchor_texts"),
        ("0001", "policy"),
    }
    assert set(statuses(project)) - set(changed) == {
        (BASE, "heldout_rows"),
        (BASE, "judge_calibration"),
        ("0001", "domain_dataset"),
        ("0001", "retrieval_index"),
    }
    scores = table(project, BASE, "base_scores", "domain_items")["prediction"].to_list()
    run(project)
    assert table(project, BASE, "base_scores", "domain_items")["prediction"].to_list() != scores

    for part, content in kept.items():
        (home / "specialist" / part).write_bytes(content)
    assert set(statuses(project).values()) == {"fresh"}
    assert run(project).computed == []
    assert table(project, BASE, "base_scores", "domain_items")["prediction"].to_list() == scores


def test_the_same_adapter_in_another_folder_is_the_same(home, tiny_folder, tmp_path, monkeypatch):
    shutil.copytree(home / "specialist", tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "README.md").write_text("of no account")
    monkeypatch.setenv("HOME", str(tmp_path))
    for named in (str(tmp_path / "elsewhere"), "~/elsewhere"):
        project = open_project(home, tiny_folder, policy={"initial_adapter": named})
        assert set(statuses(project).values()) == {"fresh"}


def test_without_it_the_loop_starts_from_the_base_model_and_with_it_again_all_is_reused(home, tiny_folder):
    bare = open_project(home, tiny_folder, policy={"initial_adapter": None}, training={"lora_targets": "all-linear"})
    assert bare.identity("initial_adapter") == "none"
    assert bare.planner().stage("0001", "policy").inputs["previous_adapter"] == "none"
    run(bare)
    assert [check["against"] for check in bare.planner().verdict("0001")["checks"]] == ["the base model"] * 2
    assert findings(bare)["start"] == "the base model"
    project = open_project(home, tiny_folder)
    assert run(project).computed == []


@pytest.mark.parametrize(
    ("key", "name", "module", "read"),
    [
        (BASE, "base_scores", policies, "open_policy"),
        ("0001", "policy", importlib.import_module("apt_assets.assets.policy"), "initial_adapter"),
    ],
)
def test_overwritten_while_a_stage_runs_nothing_of_it_is_kept(
    key, name, module, read, project, home, tiny_folder, monkeypatch
):
    real = getattr(module, read)
    monkeypatch.setattr(module, read, lambda *given: (real(*given), overwrite(home, tiny_folder, 3))[0])
    (home / ".apt/store/rows").rename(home / "rows")
    project.store.forget(project.planner().stage(key, name).manifest)
    with pytest.raises(StageBlocked, match=r"(initial|previous)_adapter changed while it ran"):
        run_stage(project, key, name, run_id="r")
    assert not [path for path in (home / ".apt/store/rows").rglob("*.jsonl") if len(path.read_text().splitlines()) > 1]


def test_overwritten_after_policy_took_it_over_what_answers_is_the_copy(project, home, tiny_folder, monkeypatch):
    real = policies.open_policy
    before = table(project, "0001", "eval_predictions", "eval_predictions")["prediction"].to_list()
    monkeypatch.setattr(policies, "open_policy", lambda *given: (overwrite(home, tiny_folder, 3), real(*given))[1])
    (home / ".apt/store/rows").rename(home / "rows")
    project.store.forget(project.planner().stage("0001", "eval_predictions").manifest)
    assert run_stage(project, "0001", "eval_predictions", run_id="r").status == "computed"
    manifest = project.store.pointed("tiny", "0001", "eval_predictions")
    read = pl.read_parquet(project.store.open(manifest) / "eval_predictions.parquet")
    assert read["prediction"].to_list() == before


# -- adapters that cannot be used ----------------------------------------------------------------------


def change_config(folder: Path, **changes) -> None:
    path = folder / PARTS[0]
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def pickle_only(folder: Path) -> None:
    (folder / PARTS[1]).rename(folder / "adapter_model.bin")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (shutil.rmtree, "no such folder: .*specialist; name the one that holds adapter_config.json and"),
        (lambda folder: (folder / PARTS[0]).unlink(), "no adapter_config.json in .*specialist: save the adapter anew"),
        (lambda folder: (folder / PARTS[1]).unlink(), "no adapter_model.safetensors in .*specialist: save"),
        (pickle_only, "the weights in .*specialist may run code .*adapter_model.bin.*save the adapter anew"),
    ],
)
def test_folder_without_an_adapter_is_told_by_plan(damage, said, project, home):
    damage(home / "specialist")
    with pytest.raises(UsageError, match=f"^policy.initial_adapter: {said}"):
        project.planner().plan(1)


def drop(folder: Path, part: str) -> None:
    path = folder / PARTS[1]
    save_file({name: weight for name, weight in load_file(path).items() if part not in name}, path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / PARTS[0]).write_text("[]"), "peft_type in adapter_config.json is None, not LORA"),
        (lambda folder: change_config(folder, peft_type="IA3"), "peft_type in adapter_config.json is IA3, not LORA"),
        (lambda folder: change_config(folder, task_type="SEQ_CLS"), "task_type .* is SEQ_CLS, not CAUSAL_LM"),
        (lambda folder: change_config(folder, init_lora_weights="pissa"), "init_lora_weights is pissa, which changes"),
        (lambda folder: change_config(folder, modules_to_save=["lm_head"]), "it uses modules_to_save"),
        (lambda folder: change_config(folder, bias="lora_only"), "it uses bias"),
        (lambda folder: change_config(folder, target_modules=["c_attn"]), "peft cannot put it on that model .*c_attn"),
        (lambda folder: change_config(folder, r=4), r"lora_A.weight has the shape \[2, .*needs \[4, "),
        (lambda folder: change_config(folder, r="many"), "peft cannot put it on that model"),
        (lambda folder: change_config(folder, target_modules=["q_proj"]), r"has the shape .* where .* needs None"),
        (lambda folder: drop(folder, "v_proj.lora_B"), r"v_proj.lora_B.weight has the shape None where"),
    ],
)  # fmt: skip
def test_adapter_that_does_not_fit_is_refused_before_anything_is_computed(damage, said, begun, tiny_folder, tmp_path):
    for part in ("specialist", "landing"):
        shutil.copytree(begun / part, tmp_path / part)
    damage(tmp_path / "specialist")
    project = open_project(tmp_path, tiny_folder)
    with pytest.raises(UsageError, match=rf"^policy.initial_adapter: .*specialist cannot be trained .*: .*{said}"):
        run_loop(project, 1, Display())
    assert project.store.pointed("tiny", BASE, "base_scores") is None


def test_adapter_of_a_model_of_another_size_names_the_first_weight_that_differs(tiny_folder, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(tiny_folder / "policy")
    config.hidden_size, config.head_dim = 64, 16
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "larger")
    tiny.make_adapter(tmp_path / "adapter", tmp_path / "larger")
    said = problem_with(tmp_path / "adapter", tiny_folder / "policy")
    assert "layers.0.mlp.down_proj.lora_B.weight has the shape [64, 2] where that model needs [32, 2]" in said


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_adapter_of_the_output_head_or_the_embeddings_is_refused(target, tiny_folder, tmp_path):
    tiny.make_adapter(tmp_path / "adapter", tiny_folder / "policy", target_modules=["q_proj", target])
    assert f"{target}, which is the output head or no linear layer" in problem_with(
        tmp_path / "adapter", tiny_folder / "policy"
    )


@pytest.mark.parametrize(
    "kind",
    [
        {"task_type": None},
        {"use_dora": True},
        {"use_rslora": True, "lora_dropout": 0.1},
        {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 3}},
        {"target_modules": ["o_proj"], "layers_to_transform": [1]},
    ],
)
def test_lora_of_any_plain_kind_is_trained_further_and_no_hub_is_asked(kind, tiny_folder, tmp_path, monkeypatch):
    adapter = tiny.make_adapter(tmp_path / "adapter", tiny_folder / "policy", **kind)
    change_config(adapter, base_model_name_or_path="somebody/of-the-hub")
    assert problem_with(adapter, tiny_folder / "policy") is None
    monkeypatch.setattr("peft.utils.other.file_exists", lambda *given, **named: pytest.fail("the hub was asked"))
    (tmp_path / "out").mkdir()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Could not find a config file")
        train_adapter(tiny_folder / "policy", adapter, pairs(4), None, RECIPE, tmp_path / "out")
    start, end = (load_file(folder / PARTS[1]) for folder in (adapter, tmp_path / "out"))
    assert start.keys() == end.keys()
    assert any(not start[name].equal(end[name]) for name in start)

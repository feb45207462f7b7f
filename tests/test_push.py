"""What goes to the hub, against a stand-in of its HTTP interface on this machine: not the hub itself."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants

from apt_assets.report import push as pushing
from apt_assets.report.push import Wanted, push
from apt_assets.settings.experiment import UsageError
from resources.store.digest import digest_file
from tests import fake_hub

pytestmark = pytest.mark.slow("loop")

WANTED = Wanted("me/colours", base="org/tiny-base")


@pytest.fixture
def hub(monkeypatch):
    """As `HF_ENDPOINT=... HF_TOKEN=... HF_HUB_DISABLE_XET=1`, for a process that has the library already."""
    with fake_hub.serve() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield hub


def adapter_of(project, key) -> Path:
    return project.artifact(project.planner().stage(key, "promoted_adapter").manifest) / "adapter_model.safetensors"


def test_promoted_adapter_goes_with_its_card_and_pairs_in_one_private_commit(project, hub, tmp_path):
    found = push(project, WANTED, dry_run=False)
    repo = hub.repos["me/colours"]
    assert repo["private"]
    assert repo["commits"] == [f"tiny, iteration 0002, adapter {digest_file(adapter_of(project, '0002'))[:16]}"]
    assert repo["files"]["adapter_model.safetensors"] == adapter_of(project, "0002").read_bytes()
    assert json.loads(repo["files"]["adapter_config.json"])["base_model_name_or_path"] == "org/tiny-base"
    assert set(found.files) == set(repo["files"])
    assert set(repo["files"]) == {"README.md", "adapter_config.json", "adapter_model.safetensors", "data/train.jsonl"}
    pairs = [json.loads(line) for line in repo["files"]["data/train.jsonl"].splitlines()]
    assert len(pairs) == project.planner().stage("0002", "preference_pairs").manifest.facts["rows"]
    assert hub.tokens == {"Bearer hf_of_a_test"}
    push(project, replace(WANTED, iteration=1), dry_run=False)
    assert repo["files"]["adapter_model.safetensors"] == adapter_of(project, "0001").read_bytes()
    assert len(repo["commits"]) == 2


def test_hub_reads_the_scores_out_of_the_card_and_no_folder_of_this_machine(project, hub, tmp_path):
    push(project, WANTED, dry_run=False)
    text = hub.repos["me/colours"]["files"]["README.md"].decode()
    (tmp_path / "README.md").write_text(text)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == "org/tiny-base"
    scores = project.planner().stage("0002", "benchmark_scores").manifest.facts
    found = {(one.dataset_name, one.dataset_split, one.metric_type): one for one in card.data.eval_results}
    assert found["tiny", "test", "exact_match"].metric_value == scores["domain"]["test"]["exact"]["mean"]
    general = found["colours", "test", "accuracy"]
    assert general.metric_value == scores["general"]["colours"]["accuracy"]["mean"]
    assert general.metric_args["high"] == scores["general"]["colours"]["accuracy"]["high"]
    assert found["sayings", "test", "perplexity"].metric_value == scores["passages"]["sayings"]["word_perplexity"]
    assert 'PeftModel.from_pretrained(base, "me/colours")' in text
    assert "hf://me/colours/data/train.jsonl" in text
    assert str(project.home) not in text
    assert str(project.models.base_model) not in text


def test_dry_run_of_the_merged_model_asks_nobody_and_leaves_nothing(project, hub):
    before = sorted(path for path in project.home.rglob("*") if ".apt/store" not in str(path))
    found = push(project, Wanted("me/colours", merged=True, pairs=False), dry_run=True)
    assert {"README.md", "model.safetensors", "config.json", "tokenizer.json"} <= set(found.files)
    assert not [name for name in found.files if name.startswith(("adapter", "data"))]
    assert (hub.repos, hub.tokens) == ({}, set())
    shown = pushing.as_text(found)
    assert all(name in shown for name in found.files)
    assert "nothing was uploaded" in shown
    after = sorted(path for path in project.home.rglob("*") if ".apt/store" not in str(path))
    assert [path.name for path in after if path not in before] in ([], ["pushed"])


def test_what_may_not_go_is_refused_before_anything_is_uploaded(project, hub, monkeypatch):
    with pytest.raises(UsageError, match="--base"):
        push(project, Wanted("me/colours"), dry_run=False)
    with pytest.raises(UsageError, match=r"iteration 0007 was not opened yet \(opened: 0001, 0002\)"):
        push(project, replace(WANTED, iteration=7), dry_run=False)
    with pytest.raises(UsageError, match="a folder of this machine"):
        push(project, replace(WANTED, base=str(project.models.base_model)), dry_run=False)
    with pytest.raises(UsageError, match=r"did not take it: .*[Rr]epo id"):
        push(project, replace(WANTED, repo="a/b/c"), dry_run=False)
    assert hub.repos == {}

    hub.repos["me/colours"] = {"private": False, "files": {}, "commits": []}
    with pytest.raises(UsageError, match="me/colours is public: say --public"):
        push(project, WANTED, dry_run=False)
    assert hub.objects == {}
    hub.refuses = 403
    with pytest.raises(UsageError, match=r"me/colours: http://127.* did not take it: .*no write access"):
        push(project, replace(WANTED, private=False), dry_run=False)
    assert hub.repos["me/colours"]["files"] == {}
    hub.refuses = None
    push(project, replace(WANTED, private=False), dry_run=False)
    assert hub.repos["me/colours"]["files"]

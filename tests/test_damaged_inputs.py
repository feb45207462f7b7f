"""What only looks at a store in which a file is damaged: it says what it can, and leaves the mending to `run`."""

import shutil

import pytest

from apt_assets.loop.gc import collect_garbage
from apt_assets.loop.work import work_of
from tests import tiny
from tests.conftest import BOTH_TASKS

pytestmark = pytest.mark.slow("loop")


@pytest.fixture
def project(finished, tiny_folder, tmp_path):
    """Two promoted iterations whose answers are to be longer now."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tiny.open_project(tmp_path, tiny_folder, **BOTH_TASKS, policy={"max_new_tokens": 5})


def spoil(project, stage, file, damage):
    manifest = project.store.pointed("tiny", "0001", stage)
    path = project.store.open(manifest) / file
    path.chmod(0o644)
    path.write_bytes(damage(path.read_bytes()))


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:200], lambda content: content[:-40] + bytes(40), lambda content: b""],
    ids=["cut", "overwritten", "emptied"],
)
def test_stage_whose_input_is_damaged_is_planned_by_what_it_took_the_last_time(project, damage):
    spoil(project, "domain_dataset", "train.parquet", damage)
    planner = project.planner()
    plan = planner.stage("0001", "eval_predictions")
    work = work_of(project, planner, plan)
    assert (plan.status, work.exact) == ("stale", False)
    assert work.amounts["answers"] > 0


def test_gc_keeps_all_vectors_where_what_holds_their_checks_is_damaged(project):
    spoil(project, "retrieval_index", "pool.parquet", lambda content: content[:200])
    collected = collect_garbage(project, 1, dry_run=True)
    assert not [one for one in collected.removed if "vectors" in str(one)]

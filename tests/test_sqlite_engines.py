"""Dagster's records in SQLite, with engines that are kept."""

import shutil

import dagster as dg

from apt_assets.engine.display import Display
from apt_assets.orchestration.instance import Dagster
from apt_assets.orchestration.sqlite_engines import kept
from apt_assets.project import Project


def test_statements_of_dagsters_are_compiled_once_for_each_of_its_files(make_experiment):
    instance = Dagster(Project.open(make_experiment()), Display()).instance
    kept.cache_clear()
    for number in range(5):
        instance.add_dynamic_partitions("iteration", [f"{number}"])
        assert len(instance.get_dynamic_partitions("iteration")) == number + 1
        assert instance.get_runs_count() == 0
    engines = kept.cache_info()
    assert engines.misses == 2  # of the index and of the runs
    assert engines.hits >= 13


def test_history_that_is_moved_away_and_made_anew_holds_nothing_of_the_one_before(make_experiment):
    project = Project.open(make_experiment())
    Dagster(project, Display()).instance.add_dynamic_partitions("iteration", ["0007"])
    shutil.rmtree(project.dagster_home / "history")
    assert Dagster(project, Display()).instance.get_dynamic_partitions("iteration") == []
    assert dg.DagsterInstance.get().get_runs_count() == 0

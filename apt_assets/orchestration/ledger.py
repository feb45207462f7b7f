"""Dagster's memory of the store: keeping it true.

Dagster judges an asset by its own event log: the code version and input versions of the last
materialisation against those of now. It hears of a computed stage, but not of a file edited outside,
nor that a stage whose input was recomputed is still fresh (early cut-off), nor that a setting was
flipped back. The ledger reports exactly those: an observation for each source that changed, and a
materialisation marked "hit" for each stage that is fresh by the plan and stale by the log. Then
Dagster's status of every partition and the plan say the same (tests/test_agreement.py).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import DagsterEventType

from apt_assets.engine.execute import record_hit
from apt_assets.engine.plan import StagePlan, Unsettled, stages_of
from apt_assets.engine.stage import SOURCES, STAGES, Stage
from apt_assets.orchestration.event_log import event_log
from apt_assets.orchestration.metadata import metadata
from apt_assets.project import Project
from apt_assets.settings.iterations import BASE
from resources.store import locks
from resources.store.digest import digest_json

# Sources that have a version for each iteration, and those that have one for all.
FOR_EVERY_ITERATION = tuple(s.name for s in SOURCES.values() if s.partitioned)
FOR_ALL = tuple(s.name for s in SOURCES.values() if not s.partitioned and s.name in s.shown_as)
# What Dagster writes on a materialisation, and compares (dagster 1.13, definitions/data_version.py).
DATA_VERSION = "dagster/data_version"
BY_USER = "dagster/data_version_is_user_provided"
CODE_VERSION = "dagster/code_version"
INPUT_VERSION = "dagster/input_data_version/"
INPUT_POINTER = "dagster/input_event_pointer/"
AT_ONCE = 100  # events of one query: each may hold a preview and a plot
# Home -> (what Dagster was last made to know, its log then): the same again need not be compared again.
SETTLED: dict[Path, tuple[str, list[Any] | None]] = {}


class Ledger:
    """Reads and corrects what one Dagster instance believes about one project."""

    def __init__(self, project: Project, instance: dg.DagsterInstance):
        self._project, self._instance = project, instance
        self._planner = project.planner()
        self._latest: dict[tuple[str, str | None], tuple[dict[str, str], int | None]] = {}

    def source_version(self, name: str, iteration: str) -> str | None:
        """Present data version of a source; None while it is undecided."""
        try:
            return SOURCES[name].version(self._planner, iteration)
        except Unsettled:
            return None

    def observe(self, iteration: str, names: Iterable[str]) -> None:
        """Report the sources whose version Dagster does not know yet."""
        partition = None if iteration == BASE else iteration
        for name in names:
            version = self.source_version(name, iteration)
            if version is not None and self._tags(name, partition)[0].get(DATA_VERSION) != version:
                event = dg.AssetObservation(name, partition=partition, tags={DATA_VERSION: version})
                self._instance.report_runless_asset_event(event)
                self._latest.pop((name, partition), None)

    def observe_landing(self, iterations: Iterable[str]) -> None:
        """Report the landing folder, and what the iterations use of it, where either changed."""
        self.observe(BASE, ("landing_folder",))
        keys = list(iterations)
        self._look_up(["landing_files"], keys)
        for iteration in keys:
            self.observe(iteration, ("landing_files",))

    def settle(self, iterations: Iterable[str]) -> list[tuple[str, str]]:
        """Make Dagster's status of base and these iterations that of the plan.

        Returns the (iteration, stage) pairs that were reported as reused.
        """
        reported = []
        keys = [key for key in iterations if key != BASE]
        self._look_up([name for name in (*FOR_EVERY_ITERATION, *STAGES) if takes_partition(name)], keys)
        self.observe(BASE, FOR_ALL)
        for iteration in [BASE, *keys]:
            if iteration != BASE:
                self.observe(iteration, FOR_EVERY_ITERATION)
            for name in stages_of(iteration):
                plan = self._planner.stage(iteration, name)
                if not STAGES[name].asset or plan.status != "fresh" or plan.manifest is None:
                    continue
                tags = self._expected_tags(iteration, STAGES[name], plan)
                if not self._fresh_in_log(iteration, name, tags):
                    self._report_hit(iteration, plan, tags)
                    reported.append((iteration, name))
        return reported

    def wanted(self, iterations: Iterable[str]) -> str:
        """Digest of all that `settle` makes Dagster know."""
        sources = {name: self.source_version(name, BASE) for name in FOR_ALL}
        known: list[Any] = [sources]
        for key in [BASE, *iterations]:
            versions = [self.source_version(name, key) for name in FOR_EVERY_ITERATION] if key != BASE else []
            plans = [self._planner.stage(key, name) for name in stages_of(key)]
            contents = [plan.manifest.data_version if plan.manifest else None for plan in plans]
            known.append([key, versions, [[p.status, p.fingerprint] for p in plans], contents])
        return digest_json(known)

    def _fresh_in_log(self, iteration: str, name: str, expected: dict[str, str]) -> bool:
        """Whether Dagster, by the tags of its last materialisation, takes a stage for fresh.

        Of a partitioned input a run writes where the log ended when it looked; the version at that place
        counts, not the one the run wrote, which is a digest of it (dagster 1.13, CachingStaleStatusResolver).
        """
        known = self._tags(name, None if iteration == BASE else iteration)[0]
        inputs = {tag.removeprefix(INPUT_VERSION) for tag in known if tag.startswith(INPUT_VERSION)}
        if inputs - set(dependencies(STAGES[name])):
            return False
        for tag, version in expected.items():
            given = tag.removeprefix(INPUT_VERSION)
            if given != tag and takes_partition(given):
                if not self._had_version(given, iteration, version, known.get(INPUT_POINTER + given, "")):
                    return False
            elif not tag.startswith(INPUT_POINTER) and known.get(tag) != version:
                return False
        return True

    def _had_version(self, asset: str, partition: str, version: str, end: str) -> bool:
        """Whether a partition has had `version` since the place `end` in the log, a storage id."""
        storage_id = self._tags(asset, partition)[1]
        if storage_id is None or not end.isdigit():
            return False
        if storage_id <= int(end):
            return True
        return self._fetch(asset, partition, before_storage_id=int(end) + 1)[0].get(DATA_VERSION) == version

    def _report_hit(self, iteration: str, plan: StagePlan, tags: dict[str, str]) -> None:
        assert plan.manifest is not None
        record_hit(self._project, plan, run_id="")
        partition = None if iteration == BASE else iteration
        event = dg.AssetMaterialization(
            plan.stage, partition=partition, tags=tags,
            metadata=metadata(self._project, self._planner, iteration, "hit", plan.manifest, 0.0),
        )  # fmt: skip
        self._instance.report_runless_asset_event(event)
        self._latest.pop((plan.stage, partition), None)

    def _expected_tags(self, iteration: str, stage: Stage, plan: StagePlan) -> dict[str, str]:
        assert plan.manifest is not None
        tags = {
            DATA_VERSION: plan.manifest.data_version,
            BY_USER: "true",
            CODE_VERSION: code_version(self._project, stage),
        }
        for name in dependencies(stage):
            partition = iteration if takes_partition(name) else None
            known, storage_id = self._tags(name, partition)
            if version := known.get(DATA_VERSION):
                tags[INPUT_VERSION + name] = version
                tags[INPUT_POINTER + name] = "NULL" if storage_id is None else str(storage_id)
        return tags

    def _tags(self, asset: str, partition: str | None) -> tuple[dict[str, str], int | None]:
        """(tags, storage id) of the latest event of an asset; ({}, None) if there is none."""
        if (asset, partition) not in self._latest:
            self._latest[asset, partition] = self._fetch(asset, partition)
        return self._latest[asset, partition]

    def _look_up(self, assets: Iterable[str], partitions: list[str]) -> None:
        """Fetch what `_tags` gives of many partitions at once: event by event takes ten times as long."""
        if len(partitions) < 2:
            return
        for name in assets:
            key = dg.AssetKey(name)
            kind = DagsterEventType.ASSET_MATERIALIZATION if name in STAGES else DagsterEventType.ASSET_OBSERVATION
            latest = self._instance.event_log_storage.get_latest_storage_id_by_partition(key, kind)
            self._latest |= {(name, partition): ({}, None) for partition in partitions if partition not in latest}
            wanted = [latest[partition] for partition in partitions if partition in latest]
            for start in range(0, len(wanted), AT_ONCE):
                part = wanted[start : start + AT_ONCE]
                for record in self._records(name, dg.AssetRecordsFilter(key, storage_ids=part), len(part)):
                    self._latest[name, record.partition_key] = tags_of(record)

    def _fetch(
        self, asset: str, partition: str | None, before_storage_id: int | None = None
    ) -> tuple[dict[str, str], int | None]:
        wanted = dg.AssetRecordsFilter(
            dg.AssetKey(asset),
            asset_partitions=[partition] if partition else None,
            before_storage_id=before_storage_id,
        )
        records = self._records(asset, wanted, 1)
        return tags_of(records[0]) if records else ({}, None)

    def _records(self, asset: str, wanted: dg.AssetRecordsFilter, limit: int) -> Sequence[dg.EventLogRecord]:
        fetch = self._instance.fetch_materializations if asset in STAGES else self._instance.fetch_observations
        return fetch(wanted, limit=limit).records


def tags_of(record: dg.EventLogRecord) -> tuple[dict[str, str], int]:
    """(tags, storage id) of a materialisation or an observation."""
    event = record.asset_materialization or record.asset_observation
    assert event is not None, "only such events are asked for"
    return dict(event.tags or {}), record.storage_id


def settle(project: Project, instance: dg.DagsterInstance, iterations: Iterable[str]) -> None:
    """Make Dagster know these iterations as partitions, and their status as the plan has it.

    One process at a time: two that add the same partition at once fail in Dagster's insert.
    """
    keys = list(iterations)
    with project.store.locks.take(locks.DAGSTER):
        if new := sorted(set(keys) - set(instance.get_dynamic_partitions("iteration"))):
            instance.add_dynamic_partitions("iteration", new)
        ledger, log = Ledger(project, instance), event_log(project)
        wanted = (ledger.wanted(keys), log)
        # Reading the whole log takes longer than all else that the loop driver does at a look.
        if log is None or SETTLED.get(project.dagster_home) != wanted:
            ledger.settle(keys)
            # If it had something to report, the log is another one now, and the next look compares it once more.
            SETTLED[project.dagster_home] = wanted


def takes_partition(name: str) -> bool:
    """Whether an asset, stage or source, is partitioned by iteration."""
    return name in FOR_EVERY_ITERATION or (name in STAGES and STAGES[name].partitioned)


def dependencies(stage: Stage) -> list[str]:
    """Names, in the graph, of what a stage depends on."""
    names = [name for given in stage.producers() for name in in_graph(given)]
    return list(dict.fromkeys([*names, *stage.identities]))


def in_graph(name: str) -> Iterable[str]:
    """The names that a stage or a source has in the graph; a stage that is no asset has those of its inputs."""
    if name in SOURCES:
        return SOURCES[name].shown_as
    return [name] if STAGES[name].asset else dependencies(STAGES[name])


def code_version(project: Project, stage: Stage) -> str:
    """`<code and libraries>.<settings>`, eight digits each: a changed setting shows as changed code. What reads a
    stage that is no asset, as promoted_adapter does the gate, carries its version too.
    """
    experiment = project.experiment
    code = digest_json([project.code(stage.code), stage.library_versions(experiment)])[:8]
    own = f"{code}.{digest_json(stage.settings_slice(experiment))[:8]}"
    hidden = [STAGES[name] for name in stage.input_stages() if not STAGES[name].asset]
    return "+".join([own, *(code_version(project, one) for one in hidden)])

"""A project with a real Dagster instance on a made-up store: for the sensors' decisions."""

import contextlib
import json
import time
from pathlib import Path

import dagster as dg
import yaml
from dagster import DagsterEvent, DagsterEventType, DagsterRunStatus
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.utils import make_new_run_id

import apt_assets.assets.order  # noqa: F401 - declares the stages
from apt_assets.engine.display import Display
from apt_assets.engine.plan import ENGINE_VERSION, stages_of
from apt_assets.engine.stage import STAGES
from apt_assets.orchestration.instance import Dagster
from apt_assets.orchestration.sensors import drive, notice
from apt_assets.project import Project
from apt_assets.settings.iterations import ADAPTER_PARTS, BASE
from tests import tiny


class Bench:
    """A project with a real Dagster instance, whose stages are committed by the test and not computed.

    gain: what the gate's domain check says of an iteration, default 0.1. bad_cases: how many it finds,
    default 3. refused: the iterations that the gate refuses.
    """

    def __init__(self, home: Path):
        self.home = home
        self.set()
        self.instance = Dagster(self.project, Display()).instance
        self.gain: dict[str, float] = {}
        self.bad_cases: dict[str, int] = {}
        self.refused: set[str] = set()

    def set(self, **changes):
        """Change settings; the project is opened anew, as a reloaded code location does."""
        content = {
            "name": "made-up",
            "policy": {"model": str(self.home / "policy"), "dtype": "float32"},
            "retrieval": {"encoder": str(self.home / "encoder")},
            "benchmarks": {"folder": str(self.home / "tasks"), "tasks": {"colours": None}},
            "loop": {"max_iterations": 2},
            **changes,
        }
        path = self.home / "made-up.yaml"
        path.write_text(yaml.safe_dump(content))
        self.project = Project.open(path)

    def land(self, name, rows=(0, 5)):
        return tiny.write_jsonl(self.project.landing / name, tiny.domain_rows(rows[1])[rows[0] :])

    def notice(self):
        return notice(self.project, self.instance, [])

    def drive(self):
        return drive(self.project, self.instance, [])

    def opened(self):
        """{iteration: the files that it uses}."""
        store = self.project.store
        return {key: store.snapshot("made-up", key) for key in store.iterations("made-up")}

    # -- what a run would compute ------------------------------------------------------------------

    def compute(self, *keys, before=None):
        """Commit what is not fresh of these iterations, of base and all opened ones if none is named;
        before: leave out this stage and those after it."""
        for key in keys or [BASE, *self.opened()]:
            for name in stages_of(key):
                if name == before:
                    return
                plan = self.project.planner().stage(key, name)
                if plan.status in ("stale", "missing"):
                    self.commit(key, name, plan)

    def commit(self, key, name, plan):
        parts = [part for stage in STAGES.values() for part in stage.inputs if part.startswith(f"{name}/")]
        files = {part.split("/")[1] for part in parts} | ({"domain_items.parquet"} if name == "base_scores" else set())
        files |= set(ADAPTER_PARTS) if name == "promoted_adapter" else set()
        content = json.dumps(plan.inputs) + plan.fingerprint
        with self.project.store.workspace() as folder:
            for file in files or {"content"}:
                # What is promoted is the trained adapter itself, whatever the gate compared it with.
                if name == "promoted_adapter":
                    content = plan.inputs[f"adapter_checkpoint/{file}"]
                # What the loop starts from, how it does in general, and its judge do not depend on what has landed.
                same = name in ("base_scores", "judge_calibration") and "domain" not in file
                (folder / file).write_text("the same" if same else content)
            facts = {"rows": self.bad_cases.get(key, 3)} if name == "bad_cases" else {}
            if name == "gate":
                (folder / "verdict.json").write_text(json.dumps(self.verdict(key)))
                facts = {"passed": self.verdict(key)["passed"]}
            manifest = self.project.store.commit(
                folder, stage=name, fingerprint=plan.fingerprint, **plan.facts, facts=facts, work={}, row_tables=[],
                iteration=key, seconds=0.0, run_id="", created="now", engine=ENGINE_VERSION,
            )  # fmt: skip
        self.project.store.point("made-up", key, manifest)

    def verdict(self, key):
        gain, passed = self.gain.get(key, 0.1), key not in self.refused
        scores = {"candidate": 0.5 + gain, "reference": 0.5, "difference": gain, "against": "the base model"}
        checks = [{"name": "domain", "passed": passed, **scores}, {"name": "general", "passed": True}]
        return {"passed": passed, "reason": "said the test", "checks": checks, "scale": 1.0, "scales": []}

    # -- what the daemon would make of a request ---------------------------------------------------

    def start(self, request, status=DagsterRunStatus.STARTED, seconds_ago=0.0):
        """A run of this request; `seconds_ago`: when it was started, if it was."""
        repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("apt"), "__repository__")
        run = dg.DagsterRun(
            job_name=request.job_name, run_id=make_new_run_id(), status=status,
            tags={**request.tags, "dagster/run_key": request.run_key},
            remote_job_origin=RemoteJobOrigin(repository, request.job_name),
        )  # fmt: skip
        self.instance.add_run(run)
        if status == DagsterRunStatus.STARTED:
            event = DagsterEvent(DagsterEventType.PIPELINE_START.value, job_name=run.job_name)
            self.instance.report_dagster_event(event, run.run_id, timestamp=time.time() - seconds_ago)
        return run

    def succeed(self, request):
        return self.start(request, DagsterRunStatus.SUCCESS)

    def cancel(self, request):
        run = self.start(request)
        self.instance.report_run_canceled(run)
        return run

    def fail(self, request, stage, error=RuntimeError):
        """A real run of this request whose step of this stage fails; returns its id."""

        @dg.op(name=stage)
        def broken():
            raise error()

        @dg.job(name=request.job_name)
        def job():
            broken()

        # Dagster passes an interruption on, whatever it is told of errors.
        with contextlib.suppress(dg.DagsterExecutionInterruptedError):
            job.execute_in_process(instance=self.instance, tags=request.tags, raise_on_error=False)
        return self.instance.get_runs(limit=1)[0].run_id

    def observed(self, asset, partition=None):
        """Data versions that Dagster was told of a source, the latest first."""
        wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition] if partition else None)
        records = self.instance.fetch_observations(wanted, limit=100).records
        return [record.asset_observation.tags["dagster/data_version"] for record in records]


def asked(request):
    """(job, iteration) of what must be a run request."""
    assert isinstance(request, dg.RunRequest), request
    return request.job_name, request.partition_key

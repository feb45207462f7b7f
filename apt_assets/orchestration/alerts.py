"""Which alerts there are, and when: what a run promoted, refused, failed at or put into quarantine, and the loop's end.

One event is one message: what was told is noted in the journal and not told again. Runs of `apt-assets run` are told of
by the command itself; runs that were started in Dagster, by a person or by its daemon, by sensors on their status,
which pass over those of the command since these have no code location.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from apt_assets.loop.next_run import End
from apt_assets.orchestration.delivery import Message, Outbox, channels, without_secrets
from apt_assets.project import Project
from apt_assets.promotion import LoopPlanner
from apt_assets.settings.iterations import BASE, key_of, number_of
from resources.store.digest import digest_json
from resources.store.manifest import now
from resources.store.store import StoreError

LONGEST = 600  # characters of a detail
KEYS = ("APT_SERVER_KEY", "AWS_SECRET_ACCESS_KEY")  # variables that may hold a secret


class Alerts:
    """The alerts of a run, or of a look of a sensor. tell: takes a line on what was not sent. lacking: a line for each
    way that is set and has no address.

    As a context it waits at its end for what is under way, and an exception other than an interruption is an event.
    """

    def __init__(self, project: Project, tell: Callable[[str], None]):
        self._project, self._settings = project, project.experiment.alerts
        ways, self.lacking = channels(self._settings)
        self._on = bool(ways)
        self._outbox = Outbox(ways, tell)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Exception):
            reason = f"{type(error).__name__}: {error}"
            self._say("failed", BASE, "the run failed", reason, self._command("plan"), about=now())
        if error is None or isinstance(error, Exception):
            self._outbox.close()

    def of_run(self, key: str, run_id: str, failure: str | None) -> None:
        """What a run of an iteration, or of BASE, came to. failure: what failed, if anything did."""
        if not self._on:
            return
        planner = self._project.planner()
        verdict = None if key == BASE else planner.verdict(key)
        if key != BASE:
            self._of_data(planner, key, run_id)
        if verdict and verdict["passed"] and computed_by(planner, key, "promoted_adapter", run_id):
            look = self._command("status")
            self._say("promoted", key, f"iteration {key} is promoted", verdict["reason"], look, run_id)
        elif verdict and not verdict["passed"] and computed_by(planner, key, "gate", run_id):
            look = self._command(f"show gate {key}")
            self._say("refused", key, f"iteration {key} is refused", verdict["reason"], look, run_id)
        if failure and (verdict is None or verdict["passed"]):
            title = f"a run of {'base' if key == BASE else f'iteration {key}'} failed"
            self._say("failed", key, title, failure, f"/runs/{run_id} in Dagster", about=run_id)

    def ended(self, end: End) -> None:
        """The loop is at its end. A refusal is told as such, and a project without an iteration has no loop."""
        opened = self._project.store.iterations(self._project.experiment.name)
        if not self._on or not opened:
            return
        planner, last = self._project.planner(), opened[-1]
        verdict = planner.verdict(last)
        if verdict and not verdict["passed"] and not verdict.get("no_bad_cases") and "refused" in self._settings.on:
            return
        # Of the present results: the same end of others is told again.
        about = digest_json([end.reason, planner.stage(last, "gate").fingerprint])
        self._say("ended", last, "the loop is at its end", end.reason, self._command("status"), about)

    def _of_data(self, planner: LoopPlanner, key: str, run_id: str) -> None:
        data = computed_by(planner, key, "domain_dataset", run_id)
        if data is None:
            return
        before = planner.stage(key_of(number_of(key) - 1), "domain_dataset").manifest if number_of(key) > 1 else None
        rows = unusable(data) - (unusable(before) if before else 0)
        if rows > 0:
            detail = f"{rows} rows of new files cannot be used, or are near duplicates of held-out ones"
            look = self._command(f"show quarantine {key}")
            title = f"iteration {key}: new data in quarantine"
            self._say("quarantined", key, title, detail, look, data.files["quarantine.parquet"])

    def _command(self, what: str) -> str:
        file = self._project.experiment_file
        return f"apt-assets {what}" + ("" if file is None else f" --experiment {file}")

    def _say(self, event: str, key: str, title: str, detail: str, look: str, about: str) -> None:
        """Send it, unless it was sent before. about: what the event is of, besides its iteration."""
        name = self._project.experiment.name
        if not self._on or event not in self._settings.on:
            return
        if not self._is_news(experiment=name, what=event, about=digest_json([key, about])):
            return
        keys = (*KEYS, self._project.experiment.assessor.rubric.key_variable)
        detail = without_secrets(" ".join(detail.split()), keys)[:LONGEST]
        self._outbox.send(Message(event, name, key, f"{name}: {title}", detail, look, now()))

    def _is_news(self, **told: str) -> bool:
        """Whether the journal does not have it yet; it is noted there."""
        store = self._project.store
        try:
            if any({field: one.get(field) for field in told} == told for one in store.events("alerted")):
                return False
            store.journal("alerted", **told)
        except (OSError, StoreError):
            pass  # a full disk is what may have to be told: better twice than not at all
        return True


def unusable(data: Any) -> int:
    """Rows in quarantine by a manifest of domain_dataset, without what people left out or decided in vain."""
    from apt_assets.method.left_out import BY_PEOPLE

    rows: int = data.facts["quarantine_rows"]
    return rows - sum(data.facts["left_out"].get(kind, 0) for kind in BY_PEOPLE)


def computed_by(planner: LoopPlanner, key: str, stage: str, run_id: str) -> Any:
    """The manifest of a fresh stage if this run computed it, else None."""
    plan = planner.stage(key, stage)
    manifest = plan.manifest
    return manifest if plan.status == "fresh" and manifest is not None and manifest.run_id == run_id else None

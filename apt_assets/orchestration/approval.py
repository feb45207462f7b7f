"""The job `approve`: a person decides in Dagster on what the gate passed (`gate.approval`), in its Launchpad."""

import dagster as dg

from apt_assets.loop.approval import decide
from apt_assets.project import Project
from apt_assets.report.show import parse_key
from apt_assets.settings.experiment import UsageError

NAME = "approve"


class Decision(dg.Config):  # type: ignore[misc]
    """iteration: "1" or "0001", in quotes. by, reason: who decides, and why."""

    iteration: str
    by: str
    reason: str
    refuse: bool = False


def approval_job(project: Project) -> dg.JobDefinition:
    """Its run fails, and says why, where there is nothing to decide."""

    @dg.op(name="decide")
    def decide_on(context: dg.OpExecutionContext, config: Decision) -> None:
        try:
            key = parse_key(config.iteration)
            follows = decide(project, key, config.by, config.reason, approves=not config.refuse)
        except UsageError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        context.log.info(follows)

    @dg.job(name=NAME, description="Approve of an iteration that passed its gate, or refuse it: fill in the Launchpad.")
    def approve() -> None:
        decide_on()

    return approve

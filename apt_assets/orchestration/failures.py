"""What a failed step of Dagster says, in a line."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import DagsterEvent


def what_failed(event: "DagsterEvent") -> str:
    """`STAGE: reason`, of the failure of a step."""
    data = event.step_failure_data
    error = data.user_failure_data.description if data.user_failure_data else None
    cause = data.error.cause or data.error if data.error else None
    return f"{event.step_key}: {error or (cause.message.strip() if cause else 'failed')}"

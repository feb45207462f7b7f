"""How long the loop goes on, where it computes, and who is told; provenance: experiment.py."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from resources.section import Section


class Loop(Section):
    """When the loop ends by itself."""

    max_iterations: int = Field(2, ge=1, le=9999, description="Most iterations on the same landed files (choice).")
    budget: float | None = Field(
        None,
        gt=0,
        description="In the currency of `costs`: no iteration begins with which more than that would be spent on this "
        "experiment in all; null: none is set.",
    )


class Compute(Section):
    """Where answers, scores, anchor texts and grades by a model here are computed. It makes nothing stale."""

    engine: Literal["local", "ray"] = Field(
        "local", description="local: on this machine; ray: as tasks of a Ray cluster, with the extra cluster (choice)."
    )
    address: str | None = Field(
        None,
        description="Of the cluster: ray://HOST:10001, HOST:6379, or auto on a node of it; null: this machine is one.",
    )


class Serve(Section):
    """How `apt-assets serve` tells of what it does; what it answers decides nothing here."""

    dagster: bool = Field(
        False, description="Whether Dagster has an asset `served_adapter`, with what is live and since when (choice)."
    )


Event = Literal["promoted", "refused", "failed", "ended", "quarantined"]


class Alerts(Section):
    """Who is told what a run came to (docs/guide/automation.md). Addresses of servers are secrets and stand in the
    environment: $APT_ALERT_WEBHOOK, $APT_SMTP_URL. It makes nothing stale."""

    webhook: Literal["slack", "json"] | None = Field(
        None, description="What $APT_ALERT_WEBHOOK takes: Slack's form, or all fields as JSON; null: none is told."
    )
    email: list[Annotated[str, Field(pattern=r"^[^@\s,<>]+@[^@\s,<>]+$")]] = Field(
        [], description="Addresses that the server of $APT_SMTP_URL sends to."
    )
    on: list[Event] = Field(
        list(get_args(Event)),
        description="promoted, refused: by the gate; failed: a run; ended: the loop; quarantined: rows of new files.",
    )

    @model_validator(mode="before")
    @classmethod
    def read_on(cls, values: Any) -> Any:
        """YAML 1.1 reads a key `on` as true."""
        if isinstance(values, dict) and True in values and "on" not in values:
            return {"on" if key is True else key: value for key, value in values.items()}
        return values


class Costs(Section):
    """What computing costs. With a price here, `plan`, `run`, the report and Dagster tell amounts of money. It makes
    nothing stale."""

    device_hour: float | None = Field(
        None,
        ge=0,
        description="An hour in which a stage computes, all machines that do so together; null: not counted.",
    )
    grader_per_million_tokens: float | None = Field(
        None,
        ge=0,
        description="A million tokens at assessor.rubric.endpoint, of prompts and replies alike; null: not counted.",
    )
    currency: str = Field("EUR", pattern=r"^[^\W\d_]{1,8}$|^[$\u20ac\u00a3\u00a5]$", description="Of all of these.")

    @property
    def given(self) -> bool:
        return self.device_hour is not None or self.grader_per_million_tokens is not None

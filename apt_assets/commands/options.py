"""Options that many commands have, and the project that they name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from apt_assets.project import Project

ExperimentOption = Annotated[
    Path | None,
    typer.Option(
        "--experiment",
        "-e",
        help="Experiment file. Default: $APT_EXPERIMENT, else ./experiment.yaml, else the embedded default.",
    ),
]

NumberArgument = Annotated[str | None, typer.Argument(metavar="[N]", help="The same as --iterations N.")]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def open_project(experiment: Path | None, *, fetch: bool = False) -> "Project":
    """fetch: whether models that are not on this machine are downloaded. What only looks does not."""
    from apt_assets.project import Project  # here, since it knows all stages, and `--help` has no need of them

    return Project.open(experiment, fetch=fetch)

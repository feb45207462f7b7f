"""The command line: `apt-assets`. Exit codes: report/ending.py."""

from apt_assets.report import interrupts

interrupts.end_while_importing()

import sys
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from apt_assets.commands.data import doctor, init, land, review, show
from apt_assets.commands.loop import approve, explain, gc, plan, run, status
from apt_assets.commands.results import export, push, report, serve, study, track, ui
from apt_assets.report.ending import ends, run_program


class Commands(TyperGroup):
    """Typer would end Ctrl-C and a closed pipe by itself, without a word and as a failed stage."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, OSError) as error:
            raise SystemExit(ends(error)) from None


app = typer.Typer(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""
    Make a language model better at one domain by training on what it gets wrong (APT).

    A first session: `init` an experiment file for your data, `land` the data, ask the `doctor`, `run` the loop, look
    at `status`, `show` rows of a stage, and `export` the adapter. `plan` tells beforehand what would be computed and
    why. Nothing is computed twice: a stage runs again only if its inputs, settings or code changed.

    Exit codes: 0 done; 1 a stage or the gate failed; 2 bad usage or bad input, or a disk, file or port that cannot be
    used; 130 interrupted; 141 nobody reads the output.
    """,
)


def show_version(wanted: bool) -> None:
    if wanted:
        print(f"apt-assets {metadata.version('apt-assets')}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    pass


# In the order of --help.
COMMANDS = (
    run,
    plan,
    approve,
    explain,
    gc,
    status,
    land,
    init,
    doctor,
    show,
    review,
    report,
    export,
    serve,
    track,
    push,
    study,
    ui,
)  # fmt: skip
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    sys.exit(run_program(app))


if __name__ == "__main__":
    main()

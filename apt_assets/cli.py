"""The command line: `apt-assets`. Exit codes: 0 done, 1 a stage or gate failed, 2 bad usage or input."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from apt_assets.experiment import DEFAULT_EXPERIMENT, UsageError, find_experiment
from apt_assets.project import Project
from resources.artifact_store import CorruptArtifact

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""
    Make a language model better at one domain by training on what it gets wrong (APT).

    A first session: `land` your data, `run` the loop, look at `status`, `show` rows of a stage, and
    `export` the adapter. `plan` tells beforehand what would be computed and why. Nothing is computed
    twice: a stage runs again only if its inputs, settings or code changed.

    Exit codes: 0 done; 1 a stage or the gate failed; 2 bad usage or bad input; 130 interrupted.
    """,
)

ExperimentOption = Annotated[
    Path | None,
    typer.Option(
        "--experiment",
        "-e",
        help="Experiment file. Default: $APT_EXPERIMENT, else ./experiment.yaml, else the embedded default.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@app.command()
def run(
    iterations: Annotated[
        int | None,
        typer.Option(min=1, max=9999, help="Bring iterations 1..N up to date; default: loop.iterations."),
    ] = None,
    experiment: ExperimentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the loop up to date: base scores, then each iteration in order.

    Stages that are fresh are reused. Stops at the first failed stage or refused gate with exit code 1.
    After Ctrl-C or a kill, run it again: finished stages are kept.
    """
    project = Project.open(experiment)
    from apt_assets.loop import run_loop

    say(f"experiment {project.experiment.name} ({project.experiment_file})")
    if not project.landed():
        where = f" --experiment {project.experiment_file}"
        raise UsageError(f"no data in {project.landing}: land some with `apt-assets land FILE{where}`")
    result = run_loop(project, iterations or project.experiment.loop.iterations, say)
    from apt_assets.results import results

    found = results(project)
    outcome = {
        "passed": result.passed,
        "reason": result.reason,
        "computed": [list(pair) for pair in result.computed],
        "reused": [list(pair) for pair in result.reused],
    }
    if as_json:
        print(json.dumps({**outcome, **found}))
    else:
        print_results(found)
        print(f"{len(result.computed)} stages computed, {len(result.reused)} reused")
        print_unused(project)
        if not result.passed:
            print(f"STOPPED: {result.reason}")
    raise typer.Exit(0 if result.passed else 1)


@app.command()
def plan(
    iterations: Annotated[int | None, typer.Option(min=1, max=9999, help="How many iterations to look at.")] = None,
    experiment: ExperimentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what is fresh, and what `run` would compute and why. Computes nothing itself."""
    project = Project.open(experiment)
    import apt_assets.assets  # noqa: F401 - declares the stages

    plans = project.planner().plan(iterations or project.experiment.loop.iterations)
    if as_json:
        print(json.dumps([one.as_json() for one in plans]))
        return
    rows = [[p.iteration, p.stage, p.status, "; ".join(p.causes)] for p in plans]
    print_table(("iteration", "stage", "status", "why"), rows)
    fresh = sum(p.status == "fresh" for p in plans)
    print(f"{fresh} of {len(plans)} stages are fresh")
    print_unused(project)


@app.command()
def status(experiment: ExperimentOption = None, as_json: JsonOption = False) -> None:
    """Show each iteration: the state of its stages, its scores and its gate."""
    project = Project.open(experiment)
    import apt_assets.assets  # noqa: F401 - declares the stages
    from apt_assets.results import results

    found = results(project)
    if as_json:
        print(json.dumps(found))
        return
    entries = found["iterations"]
    names = list(dict.fromkeys(name for entry in entries for name in entry["stages"]))
    cells = [[name, *(e["stages"].get(name, {}).get("status", "") for e in entries)] for name in names]
    print_table(("stage", *(entry["iteration"] for entry in entries)), cells)
    print_results(found)


@app.command()
def land(
    files: Annotated[
        list[Path], typer.Argument(help="JSONL, CSV or Parquet with prompt and answer.", metavar="FILE...")
    ],
    experiment: ExperimentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Validate data files and land them for the next iteration.

    A row needs `prompt` and `answer`; `id`, `split` (train, validation, test) and `metadata` are
    optional. Bad rows are reported with file, line, field and reason and stay out; good rows go on.
    The file itself is kept as it is. A file with no good row is refused (exit code 2).

    Without an experiment the data goes to `landing/`, which every experiment reads unless its
    `data.landing` names another folder.
    """
    found = find_experiment(experiment)
    project = Project.open(found)
    folder = project.landing
    if experiment is None and found == DEFAULT_EXPERIMENT:
        folder = project.home / "landing"
    from apt_assets.land import land_files

    report = land_files([path.expanduser() for path in files], folder)
    if as_json:
        print(json.dumps(report))
    else:
        for one in report:
            print(f"{one['file']}: {one['good']} rows landed as {one['landed']}, {len(one['bad'])} bad rows")
            rows = [[str(b["line"]), b["field"] or "-", b["reason"], b["raw"][:60]] for b in one["bad"][:20]]
            if rows:
                print_table(("line", "field", "reason", "row"), rows)
            if len(one["bad"]) > 20:
                print(
                    f"and {len(one['bad']) - 20} more; all of them: --json, or `apt-assets show quarantine ITERATION`"
                )
    if all(one["landed"] is None for one in report):
        raise UsageError("no file had a good row: nothing was landed")


@app.command()
def show(
    stage: Annotated[str, typer.Argument(help="A stage, or one of its tables: quarantine, provenance, train, ...")],
    iteration: Annotated[str, typer.Argument(help="1 or 0001; base for base_scores.")],
    limit: Annotated[int, typer.Option(min=1, help="At most this many rows.")] = 10,
    experiment: ExperimentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at the rows of a stage of an iteration, as it was last computed."""
    project = Project.open(experiment)
    from apt_assets.show import rows_of

    columns, rows, total = rows_of(project, stage, iteration, limit)
    if as_json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], ensure_ascii=False, default=str))
        return
    print_table(columns, [[str(cell) for cell in row] for row in rows])
    print(f"{len(rows)} of {total} rows")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.", metavar="DIR")],
    iteration: Annotated[int | None, typer.Option(min=1, help="Default: the last promoted iteration.")] = None,
    merge: Annotated[bool, typer.Option(help="Merge the adapter into the base model.")] = False,
    experiment: ExperimentOption = None,
) -> None:
    """Write the adapter, or the merged model, as a folder that transformers loads."""
    project = Project.open(experiment)
    from apt_assets.export import export_model

    exported = export_model(project, folder.expanduser(), iteration, merge=merge)
    print(f"wrote {'the merged model' if merge else 'the adapter'} of iteration {exported} to {folder}")


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="On 127.0.0.1.")] = 3000,
    experiment: ExperimentOption = None,
) -> None:
    """Open the project in Dagster: asset graph, runs, checks. Ends with Ctrl-C."""
    project = Project.open(experiment)
    from apt_assets.engine.plan import Unsettled
    from apt_assets.loop import Dagster
    from apt_assets.partitions import key_of, number_of

    dagster = Dagster(project, say)
    opened = project.store.iterations(project.experiment.name)
    following = key_of(number_of(opened[-1]) + 1 if opened else 1)
    try:
        planner = project.planner()
        planner.promoted_before(following)
        settled = planner.stopped(following) is None
    except Unsettled:
        settled = False
    # The following iteration only becomes a partition here: its files are fixed when it first runs.
    for key in [*opened, *([following] if settled else [])]:
        dagster.open_iteration(key)
    os.environ["APT_EXPERIMENT"] = str(project.experiment_file)
    say(f"Dagster at http://127.0.0.1:{port} (Ctrl-C ends it); asset graph: http://127.0.0.1:{port}/asset-groups")
    command = [
        str(Path(sys.executable).parent / "dagster"),
        "dev",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    workspace = Path(__file__).resolve().parents[1] / "workspace.yaml"
    os.execv(command[0], [*command, "--workspace", str(workspace)])


# -- printing -------------------------------------------------------------------------------------


def say(line: str) -> None:
    """Progress goes to stderr, results to stdout."""
    print(line, file=sys.stderr, flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escaped(cell) for cell in row))
    # A file or a pipe gets whole lines; a terminal gets its own width.
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def escaped(cell: str) -> Any:
    from rich.text import Text

    return Text(cell)


def print_results(found: dict[str, Any]) -> None:
    from apt_assets.results import SCORE_COLUMNS, general_rows, score_rows, second_rows

    print_table(SCORE_COLUMNS, score_rows(found))
    print_table(*general_rows(found))
    print("Shares in percent with 95 % intervals; test is reported only, validation decides the gate.")
    print_table(*second_rows(found))


def print_unused(project: Project) -> None:
    """Say which landed files no iteration uses yet, and what to do."""
    opened = project.store.iterations(project.experiment.name)
    used = {name for key in opened for name in project.store.snapshot(project.experiment.name, key) or []}
    if opened and (unused := [name for name in project.landed() if name not in used]):
        following = len(opened) + 1
        print(f"{', '.join(unused)}: in no iteration yet; `apt-assets run --iterations {following}` uses it")


def main() -> None:
    """Entry point: turns the errors people can act on into one message and an exit code."""
    try:
        app()
    except UsageError as error:
        say(f"error: {error}")
        sys.exit(2)
    except CorruptArtifact as error:
        say(f"error: {error}; `apt-assets run` computes it again")
        sys.exit(1)
    except KeyboardInterrupt:
        say("interrupted: finished stages are kept, and the next run goes on from there")
        sys.exit(130)


if __name__ == "__main__":
    main()

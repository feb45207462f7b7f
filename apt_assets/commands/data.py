"""Commands about data: before a run, and row by row."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from apt_assets.commands.options import ExperimentOption, JsonOption, open_project
from apt_assets.report import terminal
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.reader import DEFAULT_EXPERIMENT, expanded, file_to_write, find_experiment


def land(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="JSON, CSV or Parquet files, packed or not, or folders of data sets.", metavar="FILE..."),
    ] = None,
    from_log: Annotated[
        Path | None,
        typer.Option(help="Land nothing: queue the questions of this log of `serve` for review.", metavar="FOLDER"),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Of text that is neither UTF-8 nor begins with a mark: cp1252, gbk, ... It lands as UTF-8."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only tell what each file is taken for, with three rows, or what is to queue."),
    ] = False,
    experiment: ExperimentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Validate data files and land them for the next iteration.

    A row is `prompt` and `answer`; or one of the shapes that people have: a chat (OpenAI, ShareGPT), an instruction
    with its output (Alpaca), a preference (chosen, rejected), multiple choice. `answer` may list several that are
    right. `id`, `split` (train, validation, test) and `metadata` are optional. A folder is one that Hugging Face
    `datasets` saved, or one of Parquet files. Bad rows are reported with file, line, field and reason and stay out;
    good rows go on. So are rows that the data set will leave out: two answers to one question, or an answer that the
    experiment's assessor cannot grade.
    The file itself is kept as it is. A file with no good row is refused (exit code 2).

    Without an experiment the data goes to `landing/`, which every experiment reads unless its
    `data.landing` names another folder.
    """
    found = find_experiment(experiment)
    project = open_project(found)
    if from_log is not None:
        from apt_assets.serve.review_queue import queue_for_review

        queue_for_review(project, files, expanded(from_log, "--from-log"), dry_run=dry_run, as_json=as_json)
        return
    if not files:
        raise UsageError("name the files to land, or --from-log FOLDER")
    folder = project.landing
    if experiment is None and found == DEFAULT_EXPERIMENT:
        folder = project.home / "landing"
    from apt_assets.report.landed import NothingLanded, print_landed
    from apt_assets.report.landed import land as land_them
    from apt_assets.report.left_out import print_left_out

    landed = land_them(project, [expanded(path, "land") for path in files], folder, encoding, dry_run=dry_run)
    if as_json:
        terminal.print_json(landed.report)
    else:
        print_landed(landed.report)
        if folder == project.landing and not dry_run:
            print_left_out(landed.left_out)
    if not landed.good:
        raise NothingLanded(landed, dry_run=dry_run)


def init(
    file: Annotated[Path, typer.Argument(help="The experiment file to write.")] = Path("experiment.yaml"),
    data: Annotated[
        Path | None, typer.Option(help="Your rows: a file that `land` reads, or a folder of a data set.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the experiment; default: as the file is called.")] = None,
    model: Annotated[
        str | None, typer.Option(help="embedded, a folder with safetensors, or a hub id; default: embedded.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="apt, or fine-tuning on every training row by the same loop; default: apt.")
    ] = None,
    assessor: Annotated[
        str | None, typer.Option(help="How answers are graded; default: by what the answers are like.")
    ] = None,
    system_prompt: Annotated[
        str | None, typer.Option(help="Said before each question; '' for nothing; default: by the answers.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Of text that is not UTF-8, as `land` takes it.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: take what is proposed.")] = False,
) -> None:
    """Write an experiment file for your data: asks six questions, looks at a sample, and proposes assessor, lengths,
    splits and gate, each with its reason as a comment. Nothing lands, and no file is written over.

    Where nobody can be asked, or with --yes, what is not given by an option is taken as it is proposed.
    """
    from apt_assets.start.init import Given
    from apt_assets.start.init import init as write

    given = Given(data, name, model, recipe, assessor, system_prompt, encoding)
    ask = None if yes or not sys.stdin.isatty() else lambda question, proposed: typer.prompt(question, proposed)
    write(file, given, ask, print)


def doctor(experiment: ExperimentOption = None, as_json: JsonOption = False) -> None:
    """Look at machine, servers, model, data and settings, and tell what will be slow, will not fit or would end a run,
    each with what to do. Computes and downloads nothing; a grader behind an endpoint is asked for one grade.

    A line is `ok`, `warn` (it works, and is to be known) or `bad`. Exit code 1 if one is bad.
    """
    project = open_project(experiment)
    from apt_assets.start.doctor import examine, print_finding, summary

    found = []
    for one in examine(project):
        found.append(one)
        if not as_json:
            print_finding(one)
    if as_json:
        terminal.print_json([asdict(one) for one in found])
    else:
        print(summary(found))
    raise typer.Exit(1 if any(one.state == "bad" for one in found) else 0)


def show(
    stage: Annotated[str, typer.Argument(help="A stage, or one of its tables: quarantine, provenance, train, ...")],
    iteration: Annotated[str, typer.Argument(help="1 or 0001; base for base_scores.")],
    limit: Annotated[int, typer.Option(min=1, help="At most this many rows.")] = 10,
    experiment: ExperimentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at the rows of a stage of an iteration, as it was last computed."""
    project = open_project(experiment)
    from apt_assets.report.show import rows_of

    columns, rows, total = rows_of(project, stage, iteration, limit)
    if as_json:
        terminal.print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    terminal.print_table(columns, [[str(cell) for cell in row] for row in rows])
    print(f"{len(rows)} of {total} rows")


def review(
    number: Annotated[
        str | None, typer.Argument(metavar="[N]", help="Iteration; default: the last with bad cases.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who decides; default: your name on this machine.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0: any that is free.")] = 3100,
    to: Annotated[Path | None, typer.Option("--export", help="Only write what is open to this file.")] = None,
    tool: Annotated[Literal["label-studio", "argilla"], typer.Option("--as", help="For whom.")] = "label-studio",
    imported: Annotated[Path | None, typer.Option("--import", help="Only take decisions over from this file.")] = None,
    experiment: ExperimentOption = None,
) -> None:
    """Let people decide: a page on this machine shows bad cases, the most doubtful golds first, and asked questions.

    A decision lands at once, as a correction: the next iteration computes what it touches, and no file is edited.
    --export and --import pass by Label Studio's JSON or Argilla's records. Ends with Ctrl-C.
    """
    project = open_project(experiment)
    from apt_assets.review.command import review as do

    export_to = None if to is None else (file_to_write(to), tool)
    import_from = None if imported is None else expanded(imported, "--import")
    do(project, number, by=by, port=port, export_to=export_to, imported=import_from)

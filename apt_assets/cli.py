"""The command line: `apt-assets`. Exit codes: report/ending.py."""

from apt_assets.report import interrupts

interrupts.end_while_importing()

import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from apt_assets.report import terminal
from apt_assets.report.ending import ends, run_program
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.reader import DEFAULT_EXPERIMENT, expanded, file_to_write, find_experiment, path_of

if TYPE_CHECKING:
    from apt_assets.project import Project


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


@app.command()
def run(
    number: NumberArgument = None,
    iterations: Annotated[
        int | None,
        typer.Option(min=1, max=9999, help="Bring iterations 1..N up to date; default: until the loop ends."),
    ] = None,
    force: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STAGE[@ITERATION]",
            help="Compute this stage although it is fresh, its rows too (not vectors); default: of the last iteration.",
        ),
    ] = None,
    experiment: ExperimentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the loop up to date: base scores, then each iteration in order.

    Stages that are fresh are reused. Without --iterations the loop goes on until it ends by itself:
    after loop.max_iterations on the same data, or when an iteration gains nothing or finds no bad
    case. Stops at the first failed stage or refused gate with exit code 1.
    After Ctrl-C or a kill, run it again: finished stages are kept.

    In a terminal bars show how far each part is, with rate and time left. With --json the result is one
    object on stdout, and stderr has a JSON object per line: {"event": "line" or "progress", ...}.
    """
    from apt_assets.report.show import asked

    iterations = asked(number, iterations)
    project = open_project(experiment, fetch=True)
    from apt_assets.engine.display import display
    from apt_assets.orchestration.run import run_project
    from apt_assets.report.money import Bill

    shown, bill = display(as_json=as_json), Bill(project)
    try:
        result = run_project(project, iterations, force or (), shown)
    finally:
        shown.close()
    from apt_assets.report.left_out import lines_of_run
    from apt_assets.report.results import results

    found = results(project)
    if as_json:
        terminal.print_json({**asdict(result), **found, **bill.as_json()})
    else:
        terminal.print_results(found)
        print(f"{len(result.computed)} stages computed, {len(result.reused)} reused")
        terminal.print_unused(project)
        for line in [*lines_of_run(project), *bill.lines()]:
            print(line)
        print(f"{'ended' if result.passed else 'STOPPED'}: {result.reason}")
    raise typer.Exit(0 if result.passed else 1)


@app.command()
def plan(
    number: NumberArgument = None,
    iterations: Annotated[int | None, typer.Option(min=1, max=9999, help="How many iterations to look at.")] = None,
    experiment: ExperimentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what is fresh, what `run` would compute, why, and what that costs. Computes nothing itself.

    Costs count rows to answer, grade, embed and score, bad cases whose gold and answer are scored
    ("likelihoods"), pairs to score under the reference model ("references"), and optimiser steps; "about" is what a
    stage that waits for another one took the last time. Memory is what the models need at most on their device, by the
    longest landed rows; what will not fit is told, with the setting that helps.
    """
    from apt_assets.report.show import asked

    iterations = asked(number, iterations)
    project = open_project(experiment)
    from apt_assets.loop.outlook import planned

    found = planned(project, iterations)
    if as_json:
        stages = zip(found.plans, found.works, found.memory.peaks, strict=True)
        entries = [{**p.as_json(), "work": w.amounts, "work_exact": w.exact, "memory": peak} for p, w, peak in stages]
        terminal.print_json(found.quote.added_to(entries) if found.quote else entries)
        for line in found.memory.warnings():
            terminal.say(line)
        return
    terminal.print_plan(found)
    print(found.next_in_words)
    terminal.print_downloads(project)
    terminal.print_unused(project)


@app.command()
def approve(
    iteration: Annotated[str, typer.Argument(help="1 or 0001.")],
    by: Annotated[str, typer.Option(help="Who decides.")],
    reason: Annotated[str, typer.Option(help="Why: it is kept in the journal and in the model card.")],
    refuse: Annotated[bool, typer.Option("--refuse", help="Do not let it be promoted.")] = False,
    experiment: ExperimentOption = None,
) -> None:
    """Approve of an adapter that passed its gate, or refuse it, where the experiment asks for that
    (`gate.approval: required`). The next `run` promotes it.

    This holds for exactly this adapter and verdict; what is trained or decided anew to another result waits anew.
    Called again, the last decision counts.
    """
    project = open_project(experiment)
    from apt_assets.loop.approval import decide
    from apt_assets.report.show import parse_key

    print(decide(project, parse_key(iteration), by, reason, approves=not refuse))


@app.command()
def explain(
    stage: Annotated[str, typer.Argument(help="A stage, as `plan` lists them.")],
    iteration: Annotated[str, typer.Argument(help="1 or 0001; base for base_scores.")],
    experiment: ExperimentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the trace of a stage: what it was computed from, whether that still holds, its history."""
    project = open_project(experiment)
    from apt_assets.report import explain as explaining
    from apt_assets.report.show import parse_key, require_stage

    key = parse_key(iteration)
    require_stage(key, stage)
    found = explaining.explain(project, stage, key)
    if as_json:
        terminal.print_json(found)
    else:
        print(explaining.as_text(found))


@app.command()
def gc(
    keep: Annotated[int, typer.Option(min=1, help="Keep all of the last N iterations of each experiment.")] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
    experiment: ExperimentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove from the store what neither the last iterations nor the promoted adapter need.

    Nothing turns stale by it: older iterations keep their manifests and verdicts, and a file that is
    needed again is computed again.
    """
    project = open_project(experiment)
    from apt_assets.loop.gc import as_json as found_as_json
    from apt_assets.loop.gc import collect_garbage

    try:
        found = collect_garbage(project, keep, dry_run=dry_run)
    except RuntimeError as error:
        raise UsageError(str(error)) from None
    if as_json:
        terminal.print_json(found_as_json(found))
        return
    what = ", ".join(f"{count} {kind}" for kind, count in found.removed.items()) or "nothing"
    print(f"{'would remove' if dry_run else 'removed'}: {what}; {found.bytes / 1e6:.1f} MB")


@app.command()
def status(experiment: ExperimentOption = None, as_json: JsonOption = False) -> None:
    """Show each iteration: the state of its stages, its scores and its gate."""
    project = open_project(experiment)
    from apt_assets.report.results import results

    found = results(project)
    if as_json:
        terminal.print_json(found)
        return
    terminal.print_states(found)
    terminal.print_results(found)


@app.command()
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
        bool, typer.Option("--dry-run", help="Only tell what each file is taken for, with three rows of it.")
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

        queue_for_review(project, files, expanded(from_log, "--from-log"), as_json=as_json)
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


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="The experiment file to write.")] = Path("experiment.yaml"),
    data: Annotated[
        Path | None, typer.Option(help="Your rows: a file that `land` reads, or a folder of a data set.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the experiment; default: as the file is called.")] = None,
    model: Annotated[
        str | None, typer.Option(help="embedded, a folder with safetensors, or a hub id; default: embedded.")
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
    """Write an experiment file for your data: asks five questions, looks at a sample, and proposes assessor, lengths,
    splits and gate, each with its reason as a comment. Nothing lands, and no file is written over.

    Where nobody can be asked, or with --yes, what is not given by an option is taken as it is proposed.
    """
    from apt_assets.start.init import Given
    from apt_assets.start.init import init as write

    given = Given(data, name, model, assessor, system_prompt, encoding)
    ask = None if yes or not sys.stdin.isatty() else lambda question, proposed: typer.prompt(question, proposed)
    write(file, given, ask, print)


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def report(
    file: Annotated[Path, typer.Argument(help="The page to write.")] = Path("report.html"),
    experiment: ExperimentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML page of all that was found: scores, plots, weaknesses, what was forgotten, pairs,
    cost, settings, versions. It needs no network, fits a phone and prints.

    Computes nothing anew; stale stages are shown as they were last computed. With --json the data
    behind the page is printed and no page written.
    """
    project = open_project(experiment)
    if as_json:
        from apt_assets.report.findings import findings

        terminal.print_json(findings(project))
        return
    from apt_assets.report.page import write_report

    target = file_to_write(file)
    write_report(project, target)
    terminal.say(f"wrote {target}")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.", metavar="DIR")],
    what: Annotated[Literal["adapter", "merged", "pairs", "results"], typer.Option(help="What to write.")] = "adapter",
    iteration: Annotated[int | None, typer.Option(min=1, help="Default: the last promoted iteration.")] = None,
    experiment: ExperimentOption = None,
) -> None:
    """Write what others load: the adapter or the merged model, each with a model card, the preference
    pairs as TRL reads them, or the scores as lm-eval's results file.
    """
    project = open_project(experiment)
    from apt_assets.report.export import export as write

    exported = write(project, path_of(folder, "export"), iteration, what)
    print(f"wrote {what} of iteration {exported} to {folder}")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Others than this machine need a key: $APT_SERVER_KEY.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    previous: Annotated[
        bool, typer.Option("--previous", help="Go back to the adapter promoted before the last one, and stay there.")
    ] = False,
    canary: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of requests that the last promoted adapter answers; the others go to the one before it.",
        ),
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests under way at once; more are told to wait.")] = 64,
    body_bytes: Annotated[int, typer.Option(min=1024, help="Of one request, at most.")] = 262_144,
    log: Annotated[Path | None, typer.Option(help="Folder that keeps questions and answers; default: none.")] = None,
    log_redact: Annotated[
        str | None, typer.Option(metavar="MODULE:FUNCTION", help="Gets each line's fields, returns what is kept.")
    ] = None,
    log_days: Annotated[int, typer.Option(min=1, help="For which the log keeps a line.")] = 30,
    log_bytes: Annotated[int, typer.Option(min=1, help="Of the log; the oldest days go first.")] = 100_000_000,
    vllm: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND", help="Serve by this vLLM, with options for it, in quotes; default: by ourselves."
        ),
    ] = None,
    experiment: ExperimentOption = None,
) -> None:
    """Serve the adapter that was promoted last, with OpenAI's interface. Ends with Ctrl-C.

    A promotion goes live by itself: requests under way end with the adapter that they began with, whose digest is in
    the header x-apt-adapter. /health and /metrics (Prometheus) tell how it goes. `land --from-log` makes a queue to
    review of what the log has.
    """
    project = open_project(experiment)
    from apt_assets.engine.display import Lines
    from apt_assets.serve import command

    shown, address = Lines(), command.address_of(host, port)
    live = command.live_of(project, shown, previous=previous, canary=canary)
    logging = command.Logging(log, log_redact, log_bytes, log_days)
    if vllm is not None:
        raise typer.Exit(command.serve_by_vllm(project, vllm, address, live, logging, shown))
    command.serve(project, address, live, command.Most(requests, body_bytes), logging, shown)


@app.command()
def track(experiment: ExperimentOption = None, as_json: JsonOption = False) -> None:
    """Send to the trackers that `tracking` names what they have not got yet: each iteration whose gate has decided is
    one run, with settings, scores and their intervals, training curves and the report.

    `run` does it by itself after each iteration. This is for what could not be sent then, or was computed before
    `tracking` was set. What was sent once, to this place, is not sent again.
    Exit code 1 if a tracker failed; the others go on.
    """
    project = open_project(experiment)
    from apt_assets.tracking.send import send_all

    found = send_all(project)
    if as_json:
        terminal.print_json(asdict(found))
    else:
        for name, runs in found.sent.items():
            for key, where in runs.items():
                print(f"{name}: iteration {key}, {where}")
            if not runs and name not in found.failed:
                print(f"{name}: nothing to send")
        for name, reason in found.failed.items():
            terminal.say(f"error: {name}: {reason}")
    raise typer.Exit(1 if found.failed else 0)


@app.command()
def push(
    repo: Annotated[str, typer.Argument(help="A repository of the Hugging Face hub: NAME or OWNER/NAME.")],
    merged: Annotated[bool, typer.Option("--merged", help="The merged model in place of the adapter.")] = False,
    iteration: Annotated[int | None, typer.Option(min=1, help="Default: the last promoted iteration.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Id of the base model on the hub, where policy.model is a folder.")
    ] = None,
    pairs: Annotated[bool, typer.Option(help="The preference pairs too, which hold rows of your data.")] = True,
    private: Annotated[
        bool,
        typer.Option("--private/--public", help="A new repository's; a public one takes nothing without --public."),
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go; needs no network.")] = False,
    experiment: ExperimentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Upload the promoted adapter, or the merged model, to the Hugging Face hub: with its model card, the scores as
    evaluation results, and the preference pairs as data/train.jsonl, in one commit.

    The token is the one that `hf auth login` kept, or $HF_TOKEN. Only what the gate promoted goes, its digest is
    checked, and no path of this machine stands in the card.
    """
    project = open_project(experiment)
    from apt_assets.report import push as pushing

    wanted = pushing.Wanted(repo, merged=merged, iteration=iteration, base=base, pairs=pairs, private=private)
    found = pushing.push(project, wanted, dry_run=dry_run)
    if as_json:
        terminal.print_json(asdict(found))
    else:
        print(pushing.as_text(found))


@app.command()
def study(
    file: Annotated[Path, typer.Argument(help="The study file.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the results; default: studies/NAME.")] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Runs at a time; they share the processor cores.")] = 1,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only tell what it can take at most.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare recipes (arms) on your data: is APT better than plain fine-tuning, and what is forgotten?

    The study file names domains (experiment files whose data has landed), arms, seeds and a sweep. Every
    arm gets the same sweep, which only the validation split decides. Says first what it can take at
    most. Interrupted, it goes on where it was when called again. Writes a page and JSON.
    Exit code 1 if a run failed.
    """
    from apt_assets.engine.display import display
    from apt_assets.study.command import run_study

    shown = display(as_json=as_json)
    try:
        found = run_study(file, out, jobs, shown, only_estimate=estimate)
    finally:
        shown.close()
    if found is not None:
        if as_json:
            terminal.print_json(found)
        raise typer.Exit(1 if found["failed"] else 0)


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="On 127.0.0.1.")] = 3000,
    watch: Annotated[bool, typer.Option("--watch", help="Turn both sensors on: retrain when data lands.")] = False,
    experiment: ExperimentOption = None,
) -> None:
    """Open the project in Dagster: asset graph, runs, checks, sensors. Ends with Ctrl-C."""
    project = open_project(experiment, fetch=True)
    from apt_assets.engine.display import Lines
    from apt_assets.orchestration.ui import serve

    raise typer.Exit(serve(project, port, Lines(), watch=watch))


def main() -> None:
    sys.exit(run_program(app))


if __name__ == "__main__":
    main()

"""Commands about what came of it: reports, what is handed on, what others see."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from apt_assets.commands.options import ExperimentOption, JsonOption, open_project
from apt_assets.report import terminal
from apt_assets.settings.reader import file_to_write, path_of


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

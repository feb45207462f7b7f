"""Commands that run the loop, or look at it."""

from dataclasses import asdict
from typing import Annotated

import typer

from apt_assets.commands.options import ExperimentOption, JsonOption, NumberArgument, open_project
from apt_assets.report import terminal
from apt_assets.settings.experiment import UsageError


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
    reopen: Annotated[
        bool,
        typer.Option("--reopen", help="Iterations whose files were all taken away or renamed use what there is."),
    ] = False,
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
    from apt_assets.report.show import asked, stage_at

    iterations = asked(number, iterations)
    project = open_project(experiment, fetch=True)
    for named in force or ():
        stage_at(project, named)  # what is refused changes nothing
    for key in project.without_files() if reopen else ():
        project.open_iteration(key, anew=True)
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

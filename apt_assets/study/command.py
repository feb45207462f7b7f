"""`apt-assets study`: run a study file, or tell what it would cost."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from apt_assets.engine.display import Display
from apt_assets.project import Project
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.reader import path_of
from apt_assets.study.advice import sentence
from apt_assets.study.file import Study, load_study
from apt_assets.study.measured_on import machine
from apt_assets.study.page import page
from apt_assets.study.run import Runner, landed_rows
from apt_assets.study.summary import summary
from apt_assets.study.wanted import Known
from resources.store.digest import write_atomically
from resources.threads import cores


def run_study(
    file: Path, out: Path | None, jobs: int, display: Display, *, only_estimate: bool
) -> dict[str, Any] | None:
    """Run the study of `file` in the project's store; returns its summary, or None for an estimate only.

    Results are `study.json` and `study.html` in `out` (default: studies/NAME in the project's home), written anew
    after every run. Raises UsageError for a study that cannot be used, or a domain without landed data.
    """
    study, projects = open_study(file)
    home = next(iter(projects.values())).home
    out = path_of(out, "--out") if out else home / "studies" / study.file.name

    def write(known: Known) -> dict[str, Any]:
        found = summary(study, known, home, machine())
        write_atomically(out / "study.json", json.dumps(found, indent=1) + "\n")
        write_atomically(out / "study.html", page(found))
        return found

    runner = Runner(study, home, out, jobs, display, write)
    runner.refuse()
    if only_estimate or runner.read():
        tell_cost(study, projects, runner, display, jobs)
    if only_estimate:
        return None
    found = write(runner.run())
    for name, domain in found["domains"].items():
        if said := sentence(domain):
            display.line(f"{name}: {said}")
    display.line(f"the page: {out / 'study.html'}")
    return found


def open_study(file: Path) -> tuple[Study, dict[str, Project]]:
    """The study of `file` on what has landed, and the project of each of its domains. Raises UsageError for a study
    that cannot be used, a domain without landed data, or one that this machine cannot run."""
    study = load_study(path_of(file, "study"))
    projects = {name: Project.open(study.domain_file(name)) for name in study.domains}
    for name, project in projects.items():
        if not any(project.usable_rows(one) for one in project.landed()):
            where = f"--experiment {study.domain_file(name)}"
            raise UsageError(f"{name}: no data in {project.landing}: land some with `apt-assets land FILE {where}`")
        project.model_checks.all()
    return replace(study, landed={name: landed_rows(project) for name, project in projects.items()}), projects


def tell_cost(study: Study, projects: dict[str, Project], runner: Runner, display: Display, jobs: int) -> None:
    """Say what the whole study can take at most, arm by arm, before anything is run."""
    from apt_assets.study.estimate import estimate

    display.line("measuring what an answer, an item and a training step cost on this machine")
    found = estimate(study, projects, runner.known.refused, runner.threads)
    for one in found:
        display.line(
            f"{one['arm']} on {one['domain']}: {one['runs']} runs; at most {one['answers']} answers, {one['scores']} "
            f"scored items, {one['steps']} steps, {one['seconds'] / 60:.0f} min of one process"
        )
    minutes = sum(one["seconds"] for one in found) / 60 / min(jobs, cores())
    runs = sum(one["runs"] for one in found)
    display.line(
        f"in all {runs} runs, at most about {minutes:.0f} min with {jobs} processes; what is done is not repeated"
    )

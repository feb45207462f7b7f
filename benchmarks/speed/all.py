"""Run every speed benchmark and write docs/performance.md.

    python -m benchmarks.speed.all [--report]

Takes hours on two cores. Each benchmark saves its raw numbers in benchmarks/results/ and can be run
alone; --report writes the page from the files that are there, of two kinds of processor.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from apt_assets.settings.experiment import REPOSITORY
from benchmarks import busy, cluster, data_path, retrieval, workers
from benchmarks.speed import anchor, engine, exact, generation, parallel, scoring, training, whole_loop
from benchmarks.speed.contest import files_of, say

PAGE = REPOSITORY / "docs" / "performance.md"


class Part(NamedTuple):
    """One section of the page. results: names in benchmarks/results; table: of their contents."""

    title: str
    module: Any
    arguments: list[str]
    results: str
    table: Callable[[dict[str, Any]], str]


PARTS = (
    Part("Training step", training, [], "training", lambda found: training.report(found["runs"])),
    Part("Anchored step", anchor, [], "anchor", lambda found: anchor.report(found["runs"])),
    Part("Exact products", exact, [], "exact", lambda found: exact.report(found["runs"])),
    Part("A busy machine", busy, [], "busy", lambda found: busy.report(found["runs"])),
    Part("Workers", workers, [], "workers", lambda found: workers.report(found["runs"])),
    Part("A Ray cluster", cluster, [], "cluster", cluster.report),
    Part("Answers", generation, [], "generation", lambda found: generation.report(found["runs"])),
    Part("Answers, several at a time", parallel, [], "parallel", lambda found: parallel.report(found["runs"])),
    Part("Benchmark items", scoring, [], "scoring", scoring.report),
    Part("Similar cases", retrieval, [], "retrieval", retrieval.report),
    Part("A million rows", data_path, [], "data_path", lambda found: data_path.as_markdown(found["sizes"])),
    Part("The engine", engine, [], "engine", lambda found: engine.report(found["runs"])),
    Part("The whole loop", whole_loop, [], "whole_loop_small", lambda found: whole_loop.report(found["runs"])),
    Part("The demo", whole_loop, ["--demo"], "whole_loop_demo", lambda found: whole_loop.report(found["runs"])),
)


def section(part: Part) -> str:
    said = [f"## {part.title}", part.module.__doc__.strip()]
    measured = [json.loads(path.read_text(encoding="utf-8")) for path in files_of(part.results) if path.is_file()]
    for found in measured:
        machine = found["machine"]
        libraries = [f"{name} {version}" for name, version in found.get("libraries", {}).items()]
        when = found.get("date") or machine["date"]
        where = ", ".join([when, f"{machine['cores']} cores of {machine['cpu']}", *libraries])
        said += [f"*{where}*", part.table(found)]
    return "\n\n".join(said if measured else [*said, "Not measured yet."])


def page() -> str:
    head = (
        "# Performance\n\nWritten by `python -m benchmarks.speed.all --report` from benchmarks/results/*.json. "
        "Seconds are medians [least, most] of repeats in which all contestants took turns; ratios are medians of "
        "the repeats' own ratios."
    )
    return "\n\n".join([head, *map(section, PARTS)]) + "\n"


def main(measure: bool) -> None:
    for part in PARTS if measure else ():
        command = [sys.executable, "-m", part.module.__name__, *part.arguments]
        say(" ".join(command[1:]))
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main("--report" not in sys.argv[1:])

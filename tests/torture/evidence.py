"""What a loop did and what it left, so that a disturbed one can be compared with one that was not.

Every unit of work (a row, a vector, an optimiser step) is noted in a file by the process that computes it, batch
by batch and before it is kept.
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any


def note_work(ledger: Path) -> None:
    """Note what this process computes from now on: a line `process kind batch key` for each unit."""
    from resources.retrieval.vector_table import VectorTable
    from resources.store.row_file import RowFile
    from resources.training.checkpoints import Checkpoints

    batch = 0

    def note(kind: str, keys: list[str]) -> None:
        nonlocal batch
        batch += 1
        with ledger.open("a") as file:
            file.write("".join(f"{os.getpid()} {kind} {batch} {key}\n" for key in keys))

    append, embed, step = RowFile._append, VectorTable._embed, Checkpoints.after_step

    def appending(table: Any, rows: dict[str, Any]) -> None:
        note(f"{table.kind}-{table.digest[:8]}", list(rows))
        append(table, rows)

    def embedding(table: Any, texts: list[str], *more: Any) -> None:
        # All of them are one commit: COMMIT_ROWS is more than a tiny loop has.
        note("vectors", [text.encode().hex() for text in texts])
        embed(table, texts, *more)

    def stepping(kept: Any, trainer: Any, parts: Any) -> None:
        note(f"steps-{kept.folder.name[:8]}", [str(trainer.state.global_step)])
        step(kept, trainer, parts)

    RowFile._append = appending  # type: ignore[method-assign]
    VectorTable._embed = embedding  # type: ignore[method-assign]
    Checkpoints.after_step = stepping  # type: ignore[method-assign]


def units_done(ledger: Path) -> int:
    return len(ledger.read_text().splitlines())


def again_beyond_a_batch(ledger: Path) -> list[str]:
    """Units that were computed again although they were not in the last batch of the process before."""
    lines = [line.split() for line in ledger.read_text().splitlines()]
    last = {(process, kind): batch for process, kind, batch, _ in lines}
    times = Counter((kind, key) for _, kind, _, key in lines)
    wrong = []
    for process, kind, batch, key in lines:
        times[kind, key] -= 1
        if times[kind, key] and last[process, kind] != batch:
            wrong.append(f"{kind} {key[:40]} was computed again, though a later batch was kept")
    return wrong


def found(project: Any) -> dict[str, Any]:
    """Artifacts by data version, rows by content, vectors by their check: what must not depend on kills.

    twice: rows and vectors that are there more than once.
    """
    from apt_assets.engine.plan import stages_of
    from apt_assets.settings.iterations import BASE
    from resources.store.row_lines import is_whole

    name, planner, versions = project.experiment.name, project.planner(), {}
    for key in [BASE, *project.store.iterations(name)]:
        for stage in stages_of(key):
            plan = planner.stage(key, stage)
            versions[f"{key} {stage}"] = plan.manifest.data_version if plan.status == "fresh" else plan.status
            if plan.manifest:
                project.store.verify(plan.manifest)
                assert project.store.pointed(name, key, stage) == plan.manifest, f"{key} {stage}: its pointer"
    rows, twice = {}, []
    for path in sorted((project.store.root / "rows").glob("*/*.jsonl")):
        lines = [json.loads(line) for line in path.read_bytes().splitlines()[1:] if is_whole(line)]
        twice += [f"{path.name}: {key}" for key, n in Counter(line["key"] for line in lines).items() if n > 1]
        rows[f"{path.parent.name}/{path.name}"] = {line["key"]: line["value"] for line in lines}
    vectors = {}
    for folder in sorted((project.store.root / "lancedb").glob("vectors-*.lance")):
        table = project.store.vectors(folder.stem).rows("text", "check")
        vectors[folder.stem] = sorted(table["check"].to_list())
        twice += [f"{folder.stem}: {text}" for text, n in Counter(table["text"].to_list()).items() if n > 1]
    return {"versions": versions, "rows": rows, "vectors": vectors, "twice": twice}


def told(project: Any, instance: Any) -> dict[str, Any]:
    """What Dagster knows: the partitions, and the stages whose last materialisation it was not told of."""
    from apt_assets.orchestration.ledger import Ledger

    keys = project.store.iterations(project.experiment.name)
    return {
        "partitions": sorted(instance.get_dynamic_partitions("iteration")),
        "not told": [list(pair) for pair in Ledger(project, instance).settle(keys)],
    }

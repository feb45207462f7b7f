"""What the report says, as plain data: read from the store, nothing computed anew but counts.

A stage that is stale or was never computed shows as such, and a table that cannot be read leaves a
note: neither stops the report.
"""

import json
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

from apt_assets.drawing.svg import SERIES
from apt_assets.engine.plan import Planner, stages_of
from apt_assets.project import Project
from apt_assets.report.results import passages_of, results, start_of
from apt_assets.settings.experiment import Experiment, Section, UsageError
from apt_assets.settings.iterations import BASE
from resources.store.manifest import CorruptArtifact, Manifest

if TYPE_CHECKING:
    import polars as pl

SHOWN = 3  # rows of each kind of pair


@dataclass
class Store:
    """The tables of a project as they were last computed.

    notes: what could not be read, and why. removed: (iteration, stage) of what gc removed, which is no fault.
    """

    project: Project
    planner: Planner
    notes: list[str] = field(default_factory=list)
    removed: set[tuple[str, str]] = field(default_factory=set)

    def manifest(self, key: str, stage: str) -> Manifest | None:
        """None also where an old artifact is there but what the gate or the loop decided shut it out."""
        plan = self.planner.stage(key, stage)
        return None if plan.status in ("refused", "stopped") else plan.manifest

    def table(self, key: str, stage: str, file: str | None = None) -> "pl.DataFrame | None":
        from resources.store.tables import TableError, read_table

        if (manifest := self.manifest(key, stage)) is None:
            return None
        if manifest.collected and not self.project.store.complete(manifest):
            self.removed.add((key, stage))
            return None
        try:
            return read_table(self.project.artifact(manifest) / f"{file or stage}.parquet")
        except (UsageError, CorruptArtifact, TableError, OSError) as error:
            self.note(f"{stage} of {key}: {error}")
            return None

    def tables(self, keys: Iterable[str], stage: str, file: str | None = None) -> "dict[str, pl.DataFrame]":
        """By iteration; those that are not there are left out."""
        found = {key: self.table(key, stage, file) for key in keys}
        return {key: table for key, table in found.items() if table is not None}

    def scored(self, key: str, file: str) -> "pl.DataFrame | None":
        return self.table(key, "base_scores" if key == BASE else "benchmark_scores", file)

    def all_notes(self) -> list[str]:
        """The notes, and one on all that gc removed."""
        keys = sorted({key for key, _ in self.removed})
        stages = ", ".join(sorted({stage for _, stage in self.removed}))
        span = f"{len(keys)} iterations, {keys[0]} to {keys[-1]}" if len(keys) > 1 else "".join(keys)
        gone = f"gc removed rows of {span}: {stages}; scores and verdicts are kept"
        return [*self.notes, *([gone] if keys else [])]

    def note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)


def findings(project: Project) -> dict[str, Any]:
    """All that the report shows, ready for JSON. `iterations` is empty for a project without any.

    Shares are 0-1; times are wall-clock seconds.
    """
    keys = project.store.iterations(project.experiment.name)
    about = {"experiment": project.experiment.name, "file": str(project.experiment_file or "")}
    if not keys and project.store.pointed(project.experiment.name, BASE, "base_scores") is None:
        return {**about, "iterations": [], "landed": project.landed()}
    store = Store(project, project.planner())
    found = {**about, **results(project)}
    served = [key for key in keys if store.manifest(key, "promoted_adapter")]
    scored = [entry["iteration"] for entry in found["iterations"] if entry["scores"]]
    shown = served[-1] if served else next((key for key in reversed(scored)), BASE)
    labels = closed_labels(store, keys)
    found |= {
        "served": served[-1] if served else None,
        "shown": shown,
        "start": start_of(store.planner),
        "closed": bool(labels),
        "stale": [
            {"iteration": entry["iteration"], "stage": name, "status": stage["status"], "causes": stage["causes"]}
            for entry in found["iterations"]
            for name, stage in entry["stages"].items()
            if stage["status"] in ("stale", "missing", "waiting")
        ],
        "data": {key: manifest.facts for key in keys if (manifest := store.manifest(key, "domain_dataset"))},
        "plots": plot_data(store, keys, shown, labels),
        "weaknesses": found_weaknesses(store, keys, shown, closed=bool(labels)),
        "forgotten": forgotten(store, [key for key in scored if key != BASE], served),
        "pairs": {key: pairs for key in keys if (pairs := pair_origins(store, key))},
        "work": work_done(store, keys),
        "settings": settings_of(project.experiment),
        **identities(store, keys, served),
    }
    return {**found, "verdict": verdict(found), "notes": store.all_notes()}


def verdict(found: dict[str, Any]) -> str:
    """One or two sentences: what to serve, how good it is, and what was refused since."""
    entries = {entry["iteration"]: entry for entry in found["iterations"]}
    refused = [e for e in entries.values() if e.get("gate") and not e["gate"]["passed"]]
    later = [e for e in refused if found["served"] is None or e["iteration"] > found["served"]]
    reasons = [f"Iteration {e['iteration']} is not promoted: {e['gate']['reason']}." for e in later]
    if found["stale"]:
        reasons.append("Parts are not up to date, see below.")
    if found["served"] is None:
        return " ".join([f"No adapter is promoted yet: {found['start']} is the one to serve.", *reasons])
    served, base = entries[found["served"]]["scores"], entries[BASE]["scores"]
    parts = []
    for what, section, part in (
        ("validation", "domain", "validation"),
        ("test", "domain", "test"),
        ("general", "general", "all"),
    ):
        kind = "lenient" if section == "domain" else "accuracy"
        now, was = (scores[section][part][kind] if scores else None for scores in (served, base))
        if now and now["n"]:
            against = f" ({found['start'].removeprefix('the ')} {was['mean']:.1%})" if was and was["n"] else ""
            parts.append(f"{what} {now['mean']:.1%}{against}")
    was = passages_of(base) if base else {}
    for task, passages in (passages_of(served) if served else {}).items():
        before = f"{found['start'].removeprefix('the ')} {was[task]['word_perplexity']:.1f}" if task in was else ""
        against = f" ({before})" if before else ""
        parts.append(f"word perplexity of {task} {passages['word_perplexity']:.1f}{against}")
    return " ".join([f"Serve the adapter of iteration {found['served']}: {', '.join(parts)}.", *reasons])


def closed_labels(store: Store, keys: list[str]) -> list[str]:
    """The normalised labels if the task is closed, else none: as the assessor has it, unless most
    questions have a label of their own."""
    from resources.assessors.labels import labels_of, normalise_answer

    declared = store.project.experiment.assessor.labels
    if declared != "auto":
        return [normalise_answer(label) for label in declared]
    last = [key for key in keys if store.manifest(key, "domain_dataset")][-1:]
    train = store.table(last[0], "domain_dataset", "train") if last else None
    if train is None:
        return []
    labels = labels_of(train["answer"])
    return labels if 2 * len(labels) <= train.height else []


def plot_data(store: Store, keys: list[str], shown: str, labels: list[str]) -> dict[str, Any]:
    """What `apt_assets.drawing.plots` draws; an entry is empty where there is nothing to draw yet. Of more
    iterations than a plot holds: the first and the last ones."""
    from apt_assets.method.measures import by_label, confusion, grade_counts

    def few(tables: "dict[str, pl.DataFrame]") -> "dict[str, pl.DataFrame]":
        names = list(tables)
        return {name: tables[name] for name in (names if len(names) <= SERIES else [names[0], *names[1 - SERIES :]])}

    base, now = store.scored(BASE, "domain_items"), store.scored(shown, "domain_items")
    both = base is not None and now is not None and labels
    bad_below = store.project.experiment.assessor.bad_below
    logs = few(store.tables(keys, "adapter_checkpoint", "training_log"))
    return {
        "grades": {key: grade_counts(t) for key, t in few(store.tables(keys, "eval_predictions")).items()},
        "labels": by_label(base, now, bad_below) if both else [],  # type: ignore[arg-type]
        "curves": {key: log.to_dicts() for key, log in logs.items()},
        "confusion": confusion(now, labels) if now is not None and now.height and labels else {},
    }


def found_weaknesses(store: Store, keys: list[str], shown: str, *, closed: bool) -> list[dict[str, Any]]:
    """See `method.weaknesses.weaknesses`; by gold label if the task is closed, else by meaning."""
    import polars as pl

    from apt_assets.method.weaknesses import cluster_groups, label_groups, weaknesses

    mined = store.tables(keys, "eval_predictions")
    bad_below = store.project.experiment.assessor.bad_below
    if not mined:
        return []
    rows = pl.concat(mined.values())
    questions = rows.unique("row_id", keep="first").sort("row_id")
    base, now = store.scored(BASE, "domain_items"), store.scored(shown, "domain_items")
    if closed:
        heldout = (base, now) if base is not None and now is not None else None
        return weaknesses(mined, label_groups(questions), bad_below, heldout)
    bad = set(rows.filter(pl.col("grade") < bad_below)["row_id"])
    known, vectors = with_vectors(store, keys, questions)
    if known.filter(pl.col("row_id").is_in(bad)).is_empty():
        return []
    return weaknesses(mined, cluster_groups(known, bad, vectors), bad_below)


def with_vectors(store: Store, keys: list[str], questions: "pl.DataFrame") -> tuple["pl.DataFrame", Any]:
    """The questions that the last pool holds, and their vectors (questions, dimensions)."""
    import numpy as np

    from resources.retrieval.retriever import places

    for key in reversed(keys):
        manifest, pool = store.manifest(key, "retrieval_index"), store.table(key, "retrieval_index", "pool")
        if manifest is None or pool is None:
            continue
        try:
            table = store.project.store.vectors(manifest.facts["vectors"])
            known = questions.join(places(table, pool), on="row_id").sort("row_id")
            return known, table.vectors(known["place"].to_numpy())
        except CorruptArtifact as error:
            store.note(f"the bad cases are not grouped: {error}")
            break
    return questions.clear(), np.empty((0, 0), np.float32)


def forgotten(store: Store, scored: list[str], served: list[str]) -> list[dict[str, Any]]:
    """{before, after, parts} of each iteration against what it started from, and of the served one
    against what the loop starts from; parts: see `method.weaknesses.changed_rows` and `changed_items`."""
    from apt_assets.method.weaknesses import changed_items, changed_rows

    compared = [(next((k for k in reversed(served) if k < key), BASE), key) for key in scored]
    if served and (BASE, served[-1]) not in compared:
        compared.append((BASE, served[-1]))
    found = []
    for pair in compared:
        parts: list[dict[str, Any]] = []
        for file, changed in (("domain_items", changed_rows), ("general_items", changed_items)):
            before, after = (store.scored(key, file) for key in pair)
            if before is not None and after is not None:
                parts += changed(before, after)
        if parts:
            found.append({"before": pair[0], "after": pair[1], "parts": parts})
    return found


def with_cases(store: Store, key: str, pairs: "pl.DataFrame") -> "pl.DataFrame":
    """The first SHOWN pairs of each kind, with the question of the bad case they came by (`case`) and their
    rank and similarity as its neighbour."""
    import polars as pl

    kinds = pairs["kind"].unique().sort()
    rows = pl.concat([pairs.clear(), *(pairs.filter(pl.col("kind") == kind).head(SHOWN) for kind in kinds)])
    if (neighbors := store.table(key, "neighbors")) is not None:
        rows = rows.join(
            neighbors.select("row_id", "rank", "similarity"), on="row_id", how="left", maintain_order="left"
        )
    if (cases := store.table(key, "bad_cases")) is not None:
        cases = cases.select(pl.col("row_id").alias("case_id"), pl.col("prompt").alias("case"))
        rows = rows.join(cases, on="case_id", how="left", maintain_order="left")
    return rows


def pair_origins(store: Store, key: str) -> dict[str, Any] | None:
    """{kinds: {kind: rows}, files: {kind: {landed file: rows}}, rows}: the first SHOWN rows of each kind
    with the bad case they came by, similarity and rank as its neighbour, answer, grade, file and line."""

    from apt_assets.report.show import with_lines

    pairs = store.table(key, "preference_pairs")
    if pairs is None:
        return None
    kinds = dict(pairs["kind"].value_counts().sort("kind").iter_rows())
    found: dict[str, Any] = {"kinds": kinds, "files": {}}
    rows = with_cases(store, key, pairs)
    if (origin := store.table(key, "domain_dataset", "provenance")) is not None:
        by_file = pairs.join(origin, on="row_id").group_by("kind", "file").len().sort("kind", "file")
        for kind, file, count in by_file.iter_rows():
            found["files"].setdefault(kind, {})[file] = count
        lines = with_lines(store.project, origin.join(rows, on="row_id", how="semi")).select("row_id", "file", "line")
        rows = rows.join(lines, on="row_id", how="left", maintain_order="left")
    return {**found, "rows": rows.to_dicts()}


def work_done(store: Store, keys: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """iteration -> stage -> {kind of work: {reused, computed}, or steps: number}, where there was any."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for key in [BASE, *keys]:
        manifests = {name: store.manifest(key, name) for name in stages_of(key)}
        found[key] = {name: m.work for name, m in manifests.items() if m and m.work and m.iteration == key}
    return found


def settings_of(experiment: Experiment) -> list[dict[str, Any]]:
    """{key, value, default, changed, meaning} of every setting, those that differ from the default first."""
    return sorted(single_settings(experiment, Experiment(name=experiment.name)), key=lambda one: not one["changed"])


def single_settings(section: Section, usual: Section, prefix: str = "") -> Iterator[dict[str, Any]]:
    """The settings of a section and of those in it, against the `usual` ones."""
    for name, declared in type(section).model_fields.items():
        value, default = getattr(section, name), getattr(usual, name)
        if isinstance(value, Section):
            yield from single_settings(value, default, f"{prefix}{name}.")
        elif prefix:  # name and owners decide nothing
            its = {"key": prefix + name, "value": value, "default": default, "changed": value != default}
            yield {**its, "meaning": declared.description or ""}


def identities(store: Store, keys: list[str], served: list[str]) -> dict[str, Any]:
    """{versions: {library: versions that computed what is shown}, digests: {what: sha256}}."""
    versions: dict[str, set[str]] = {}
    digests: dict[str, str] = {}
    for key in [BASE, *keys]:
        for name in stages_of(key):
            if manifest := store.manifest(key, name):
                for library, version in manifest.libraries.items():
                    versions.setdefault(library, set()).add(version)
                digests |= manifest.identities
    if served and (adapter := store.manifest(served[-1], "adapter_checkpoint")):
        digests |= {f"adapter of {served[-1]}: {name}": digest for name, digest in adapter.files.items()}
    for key in keys:
        digests |= {f"landed, {key}: {name}": digest for name, digest in store.planner.landed(key).items()}
    own = {"apt-assets": metadata.version("apt-assets"), "python": platform.python_version()}
    used = {name: ", ".join(sorted(found)) for name, found in sorted(versions.items())}
    return {"versions": {**own, **used}, "digests": digests}


def as_json(found: dict[str, Any]) -> str:
    return json.dumps(found, ensure_ascii=False, default=str)

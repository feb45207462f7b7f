"""What the report says, as plain data: read from the store, nothing computed anew but counts."""

import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from apt_assets.engine.plan import stages_of
from apt_assets.loop.promotions import promotions
from apt_assets.method.grades import is_bad
from apt_assets.project import Project
from apt_assets.report.doubtful import doubtful_golds
from apt_assets.report.look import ProjectLook
from apt_assets.report.money import costs_of
from apt_assets.report.results import passages_of, results, start_of
from apt_assets.settings.experiment import Experiment
from apt_assets.settings.iterations import BASE
from resources.section import Section
from resources.store.manifest import CorruptArtifact, Manifest

if TYPE_CHECKING:
    import polars as pl

SHOWN = 3  # rows of each kind of pair


def findings(project: Project) -> dict[str, Any]:
    """All that the report shows, ready for JSON. `iterations` is empty for a project without any.

    Shares are 0-1; times are wall-clock seconds.
    """
    keys = project.store.iterations(project.experiment.name)
    about = {"experiment": project.experiment.name, "file": str(project.experiment_file or "")}
    if not keys and project.store.pointed(project.experiment.name, BASE, "base_scores") is None:
        return {**about, "iterations": [], "landed": project.landed()}
    look = ProjectLook(project, project.planner(), keys, BASE, keys)
    found = {**about, **results(project)}
    served = dict(promotions(project))
    last = max(served, default=None)
    scored = [entry["iteration"] for entry in found["iterations"] if entry["scores"]]
    look.shown = last or next((key for key in reversed(scored)), BASE)
    found |= {
        "served": last,
        "measured": last is not None and look.planner.tells_of(last, served[last]),
        "shown": look.shown,
        "start": start_of(look.planner),
        "closed": bool(look.labels()),
        "stale": [
            {"iteration": entry["iteration"], "stage": name, "status": stage["status"], "causes": stage["causes"]}
            for entry in found["iterations"]
            for name, stage in entry["stages"].items()
            if stage["status"] in ("stale", "missing", "waiting")
        ],
        "data": {key: manifest.facts for key in keys if (manifest := look.manifest(key, "domain_dataset"))},
        "plots": look.plots(),
        "weaknesses": found_weaknesses(look),
        "forgotten": forgotten(look, [key for key in scored if key != BASE], served),
        "doubtful": {key: ranked for key in keys if (ranked := doubtful_golds(look, key))},
        "pairs": {key: pairs for key in keys if (pairs := pair_origins(look, key))},
        "work": work_done(look, keys),
        **({"money": costs_of(look, keys)} if project.experiment.costs.given else {}),
        "settings": settings_of(project.experiment),
        **identities(look, keys, {last: served[last]} if last else {}),
    }
    return {**found, "verdict": verdict(found), "notes": look.all_notes()}


def verdict(found: dict[str, Any]) -> str:
    """One or two sentences: what to serve, how good it is, and what was refused since."""
    entries = {entry["iteration"]: entry for entry in found["iterations"]}
    refused = [e for e in entries.values() if e.get("gate") and not e["gate"]["passed"]]
    later = [e for e in refused if found["served"] is None or e["iteration"] > found["served"]]
    reasons = [f"Iteration {e['iteration']} is not promoted: {e['gate']['reason']}." for e in later]
    plans = {key: entry["stages"].get("promoted_adapter") for key, entry in entries.items()}
    held = ["; ".join(plan["causes"]) for plan in plans.values() if plan and plan["status"] == "held"]
    reasons += [f"{reason[0].upper()}{reason[1:]}." for reason in held]
    if found["stale"]:
        reasons.append("Parts are not up to date, see below.")
    if found["served"] is None:
        return " ".join([f"No adapter is promoted yet: {found['start']} is the one to serve.", *reasons])
    if not found["measured"]:
        anew = f"Serve the adapter that iteration {found['served']} promoted: the figures are of the one made since."
        return " ".join([anew, *reasons])
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


def found_weaknesses(look: ProjectLook) -> list[dict[str, Any]]:
    """See `method.weaknesses.weaknesses`; by gold label if the task is closed, else by meaning."""
    import polars as pl

    from apt_assets.method.weaknesses import cluster_groups, label_groups, weaknesses

    mined = look.all_tables("eval_predictions")
    bad_below = look.experiment.assessor.bad_below
    if not mined:
        return []
    rows = pl.concat(mined.values())
    questions = rows.unique("row_id", keep="first").sort("row_id")
    base, now = look.scored(BASE, "domain_items"), look.scored(look.shown, "domain_items")
    if look.labels():
        heldout = (base, now) if base is not None and now is not None else None
        return weaknesses(mined, label_groups(questions), bad_below, heldout)
    bad = set(rows.filter(is_bad(pl.col("grade"), bad_below))["row_id"])
    known, vectors = with_vectors(look, questions)
    if known.filter(pl.col("row_id").is_in(bad)).is_empty():
        return []
    return weaknesses(mined, cluster_groups(known, bad, vectors), bad_below)


def with_vectors(look: ProjectLook, questions: "pl.DataFrame") -> tuple["pl.DataFrame", Any]:
    """The questions that the last pool holds, and their vectors (questions, dimensions)."""
    import numpy as np

    from resources.retrieval.retriever import places

    for key in reversed(look.keys):
        manifest, pool = look.manifest(key, "retrieval_index"), look.table(key, "retrieval_index", "pool")
        if manifest is None or pool is None:
            continue
        try:
            table = look.project.store.vectors(manifest.facts["vectors"])
            known = questions.join(places(table, pool), on="row_id").sort("row_id")
            return known, table.vectors(known["place"].to_numpy())
        except CorruptArtifact as error:
            look.note(f"the bad cases are not grouped: {error}")
            break
    return questions.clear(), np.empty((0, 0), np.float32)


def forgotten(look: ProjectLook, scored: list[str], promoted: Iterable[str]) -> list[dict[str, Any]]:
    """{before, after, parts} of each iteration against what it started from, and of the served one
    against what the loop starts from; parts: see `method.weaknesses.changed_rows` and `changed_items`."""
    from apt_assets.method.weaknesses import changed_items, changed_rows

    served = sorted(promoted)
    compared = [(next((k for k in reversed(served) if k < key), BASE), key) for key in scored]
    if served and (BASE, served[-1]) not in compared:
        compared.append((BASE, served[-1]))
    found = []
    for pair in compared:
        parts: list[dict[str, Any]] = []
        for file, changed in (("domain_items", changed_rows), ("general_items", changed_items)):
            before, after = (look.scored(key, file) for key in pair)
            if before is not None and after is not None:
                parts += changed(before, after)
        if parts:
            found.append({"before": pair[0], "after": pair[1], "parts": parts})
    return found


def with_cases(look: ProjectLook, key: str, pairs: "pl.DataFrame") -> "pl.DataFrame":
    """The first SHOWN pairs of each kind, with the question of the bad case they came by (`case`) and their
    rank and similarity as its neighbour."""
    import polars as pl

    kinds = pairs["kind"].unique().sort()
    rows = pl.concat([pairs.clear(), *(pairs.filter(pl.col("kind") == kind).head(SHOWN) for kind in kinds)])
    if (neighbors := look.table(key, "neighbors")) is not None:
        rows = rows.join(
            neighbors.select("row_id", "rank", "similarity"), on="row_id", how="left", maintain_order="left"
        )
    if (cases := look.table(key, "bad_cases")) is not None:
        cases = cases.select(pl.col("row_id").alias("case_id"), pl.col("prompt").alias("case"))
        rows = rows.join(cases, on="case_id", how="left", maintain_order="left")
    return rows


def pair_origins(look: ProjectLook, key: str) -> dict[str, Any] | None:
    """{kinds: {kind: rows}, files: {kind: {landed file: rows}}, rows}: the first SHOWN rows of each kind
    with the bad case they came by, similarity and rank as its neighbour, answer, grade, file and line."""

    from apt_assets.report.show import with_lines

    pairs = look.table(key, "preference_pairs")
    if pairs is None:
        return None
    kinds = dict(pairs["kind"].value_counts().sort("kind").iter_rows())
    found: dict[str, Any] = {"kinds": kinds, "files": {}}
    rows = with_cases(look, key, pairs)
    if (origin := look.table(key, "domain_dataset", "provenance")) is not None:
        by_file = pairs.join(origin, on="row_id").group_by("kind", "file").len().sort("kind", "file")
        for kind, file, count in by_file.iter_rows():
            found["files"].setdefault(kind, {})[file] = count
        lines = with_lines(look.project, origin.join(rows, on="row_id", how="semi")).select("row_id", "file", "line")
        rows = rows.join(lines, on="row_id", how="left", maintain_order="left")
    return {**found, "rows": rows.to_dicts()}


def work_done(look: ProjectLook, keys: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """iteration -> stage -> {kind of work: {reused, computed}, or a number}, where there was any."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for key in [BASE, *keys]:
        manifests = {name: look.manifest(key, name) for name in stages_of(key)}
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
        elif prefix and prefix != "alerts.":  # name, owners and who is told of runs decide nothing
            its = {"key": prefix + name, "value": value, "default": default, "changed": value != default}
            yield {**its, "meaning": declared.description or ""}


def identities(look: ProjectLook, keys: list[str], served: Mapping[str, Manifest]) -> dict[str, Any]:
    """{versions: {library: versions that computed what is shown}, digests: {what: sha256}}. served: what is in use, by
    its iteration."""
    versions: dict[str, set[str]] = {}
    digests: dict[str, str] = {}
    for key in [BASE, *keys]:
        for name in stages_of(key):
            if manifest := look.manifest(key, name):
                for library, version in manifest.libraries.items():
                    versions.setdefault(library, set()).add(version)
                digests |= manifest.identities
    for key, adapter in served.items():
        digests |= {f"adapter of {key}: {name}": digest for name, digest in adapter.files.items()}
    for key in keys:
        digests |= {f"landed, {key}: {name}": digest for name, digest in look.planner.landed(key).items()}
    own = {"apt-assets": metadata.version("apt-assets"), "python": platform.python_version()}
    used = {name: ", ".join(sorted(found)) for name, found in sorted(versions.items())}
    return {"versions": {**own, **used}, "digests": digests}

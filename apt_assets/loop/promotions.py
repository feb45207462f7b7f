"""What was promoted and still counts: what may be served."""

from collections.abc import Iterator

from apt_assets.project import Project
from apt_assets.promotion import DISAPPROVED, TRAINED, decided_by_people
from resources.store.manifest import Manifest
from resources.store.store import Store

BAD_CASES = (("bad_cases", "rows"), ("preference_pairs", "bad_cases"))  # (stage, the fact of it that counts them)


def promotions(project: Project) -> Iterator[tuple[str, Manifest]]:
    """(iteration, what it promoted), the latest first, of those that neither their gate nor a person refused since, and
    that the loop still comes to. Of what `gc` removed the manifest is there and not the files.

    Read are pointers, and a plan only where people decided, or an iteration from there on was refused or has nothing to
    train on since: while one is computed anew, what it promoted before counts until its gate has decided. What a person
    refused counts only if the verdict of now has been approved of.
    """
    store, name = project.store, project.experiment.name
    decided = decided_by_people(store, name) if project.experiment.gate.approval != "none" else {}
    standing: list[tuple[str, Manifest, bool, bool]] = []
    unsure = False  # whether an earlier promotion may have been refused since
    for key in store.iterations(name):
        verdict, promoted = store.pointed(name, key, "gate"), store.pointed(name, key, "promoted_adapter")
        if verdict is None or promoted is None:
            continue
        adapter = promoted.inputs.get(TRAINED, "")
        unsure = unsure or adapter in decided or not verdict.facts["passed"] or trains_on_nothing(store, name, key)
        if verdict.facts["passed"]:
            standing.append((key, promoted, unsure, decided.get(adapter) == DISAPPROVED))
    planner = project.planner() if unsure else None
    for key, promoted, is_unsure, is_refused in reversed(standing):
        if is_refused and planner:
            counts = planner.stage(key, "promoted_adapter").status == "fresh"
        else:
            counts = not (is_unsure and planner and planner.withdrawn(key))
        if counts:
            yield key, promoted


def trains_on_nothing(store: Store, experiment: str, key: str) -> bool:
    """Whether an iteration was last computed to no bad case, or to none that is not too doubtful."""
    made = ((store.pointed(experiment, key, stage), fact) for stage, fact in BAD_CASES)
    return any(manifest is not None and manifest.facts.get(fact) == 0 for manifest, fact in made)

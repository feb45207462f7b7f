"""What was promoted and still counts: what may be served."""

from collections.abc import Iterator

from apt_assets.project import Project
from apt_assets.promotion import TRAINED, refused_by_people
from resources.store.manifest import Manifest


def promotions(project: Project) -> Iterator[tuple[str, Manifest]]:
    """(iteration, what it promoted), the latest first, of those that neither their gate nor a person refused since, and
    that the loop still comes to. Of what `gc` removed the manifest is there and not the files.

    Read are pointers, and a plan only where an earlier promotion was refused since: while an iteration is computed
    anew, what it promoted before counts until its gate has decided.
    """
    store, name = project.store, project.experiment.name
    asks_people = project.experiment.gate.approval != "none"
    refused = refused_by_people(store, name) if asks_people else set()
    standing: list[tuple[str, Manifest, bool]] = []
    lost = False  # whether an earlier promotion was refused since
    for key in store.iterations(name):
        verdict, promoted = store.pointed(name, key, "gate"), store.pointed(name, key, "promoted_adapter")
        if verdict is None or promoted is None:
            continue
        if not verdict.facts["passed"] or promoted.inputs.get(TRAINED) in refused:
            lost = True
        else:
            standing.append((key, promoted, lost))
    planner = project.planner() if lost else None
    for key, promoted, unsure in reversed(standing):
        if not (unsure and planner is not None and planner.withdrawn(key)):
            yield key, promoted

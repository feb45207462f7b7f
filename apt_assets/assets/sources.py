"""What the stages read and none of them makes, by content: files, models and tasks outside the store, and the loop
edges, which are results of another iteration.

The two loop edges cannot be arrows in Dagster: promoted_adapter -> policy would be a cycle between asset keys. So an
edge is an event: see docs/adr/0001-the-loop-edge.md.
"""

from typing import TYPE_CHECKING

from apt_assets.engine.plan import Planner
from apt_assets.engine.stage import source
from apt_assets.promotion import LoopPlanner
from apt_assets.settings.iterations import ADAPTER_PARTS, BASE
from resources.store.digest import digest_json

if TYPE_CHECKING:
    from apt_assets.engine.world import World


def of_the_loop(planner: Planner) -> LoopPlanner:
    """The planner as the loop's own: these sources are of the loop."""
    assert isinstance(planner, LoopPlanner), "results of other iterations are known to the loop's planner"
    return planner


def promoted(planner: Planner, iteration: str) -> tuple[str, str] | None:
    earlier = of_the_loop(planner).promoted_before(iteration)
    return None if earlier is None else (earlier, "promoted_adapter")


def scores_to_beat(planner: Planner, iteration: str) -> tuple[str, str]:
    earlier = of_the_loop(planner).promoted_before(iteration)
    earlier = BASE if earlier is None else earlier
    return earlier, of_the_loop(planner).scored_by(earlier)


def initial_adapter_now(world: "World", planner: Planner, iteration: str) -> str:
    """Where a promoted adapter is started from, what lies outside the store does not matter."""
    came_from = promoted(planner, iteration)
    return world.identity("initial_adapter") if came_from is None else previous_adapter(planner, iteration)


# -- outside the store -----------------------------------------------------------------------------------


@source(shown_as=())
def iteration(planner: Planner, iteration: str) -> str:
    """The key of the iteration itself, by which it draws its questions."""
    return iteration


@source(
    partitioned=True,
    outside=lambda world, planner, iteration: digest_json(world.landing_files(iteration)),
)
def landing_files(planner: Planner, iteration: str) -> str:
    """The landed files that an iteration uses, by what their rows say. An iteration keeps the list of files
    that were there when it was opened; an edit or a withdrawal of one shows up here as a new data version.
    """
    return digest_json(planner.landed(iteration))


@source(outside=lambda world, planner, iteration: digest_json(world.landing_files(BASE)))
def landing_folder(planner: Planner, iteration: str) -> str:
    """All files landed by now: what base_scores are of."""
    return digest_json(planner.landed(BASE))


@source()
def base_model(planner: Planner, iteration: str) -> str:
    """The base model, by the content of its files: overwriting one in place shows up here."""
    return planner.world.identity("base_model")


@source()
def execution(planner: Planner, iteration: str) -> str:
    """How the base model is run on this machine: packed, many sequences in one pass; or plain, each alone, where its
    packed passes were tried and did not agree with transformers.
    """
    return planner.world.identity("execution")


@source()
def initial_adapter(planner: Planner, iteration: str) -> str:
    """The adapter that the loop starts from (policy.initial_adapter), by the content of its two files; none: it
    starts from the base model.
    """
    return planner.world.identity("initial_adapter")


@source()
def anchor_folder(planner: Planner, iteration: str) -> str:
    """The folder of general text of one's own (anchor.folder), by the content of its files; none: the model that the
    loop starts from writes it.
    """
    return planner.world.identity("anchor_folder")


@source()
def encoder(planner: Planner, iteration: str) -> str:
    """The sentence encoder, by the content of its files."""
    return planner.world.identity("encoder")


@source()
def grader(planner: Planner, iteration: str) -> str:
    """The local model that grades by a rubric, by the content of its files; none if none does."""
    return planner.world.identity("grader")


@source()
def grader_execution(planner: Planner, iteration: str) -> str:
    """How that model is run on this machine; none if there is none."""
    return planner.world.identity("grader_execution")


@source()
def human_grades(planner: Planner, iteration: str) -> str:
    """What people graded (assessor.calibration.folder), by the content of the files; none if nothing lies there."""
    return planner.world.identity("human_grades")


@source()
def benchmark_tasks(planner: Planner, iteration: str) -> str:
    """The general tasks that the experiment names, and their data, by content."""
    return planner.world.identity("benchmark_tasks")


# -- results of another iteration ------------------------------------------------------------------------


@source(partitioned=True, producer=promoted, outside=initial_adapter_now, stands_for=["initial_adapter"])
def previous_adapter(planner: Planner, iteration: str) -> str:
    """The loop edge. Iteration t starts from the adapter that the last passed gate before t promoted, but an
    arrow promoted_adapter -> policy would be a cycle between asset keys, which Dagster refuses. So the edge
    is an event: when the gate of t has decided, its step logs an observation of previous_adapter[t+1] whose
    data version is that of the adapter, and Dagster then shows policy[t+1] as stale with this asset as the
    cause. Before the first promotion it is the initial adapter, or "none", the base model. Observing it by
    hand reads the same answer from the store. See docs/adr/0001-the-loop-edge.md.
    """
    came_from = promoted(planner, iteration)
    if came_from is None:
        return planner.world.identity("initial_adapter")
    files = planner.fresh(*came_from).files
    return digest_json([files[part] for part in ADAPTER_PARTS])


@source(shown_as=["previous_adapter"])
def promoted_count(planner: Planner, iteration: str) -> str:
    """How many adapters were promoted before: what the learning rate decays by."""
    return str(of_the_loop(planner).promoted_count(iteration))


@source(partitioned=True, producer=scores_to_beat)
def reference_scores(planner: Planner, iteration: str) -> str:
    """The other loop edge, made in the same way: the domain scores that the gate compares with, which are those
    of the adapter promoted before this iteration, or else base_scores.
    """
    return planner.fresh(*scores_to_beat(planner, iteration)).files["domain_items.parquet"]

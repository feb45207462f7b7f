"""The dataflow as data: what each stage reads, which settings it depends on, what computes it and what it leaves.

A stage is declared once, by `@stage` on its function in `apt_assets/assets/`, and what no stage makes by `@source`
(`apt_assets/assets/sources.py`). The planner, the command line and the Dagster assets are derived from these.

Everything else in the engine reads declarations, so nothing of it is imported here, and what a declared function gets
is named in words: a Step (engine/step.py), a View (view.py), a Planner (plan.py), a World (world.py).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from resources.store.kinds import Declaration, RowKind

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.settings.experiment import Experiment
    from resources.store.manifest import Manifest


Compute = Callable[[Any], None]  # gets a Step
Version = Callable[[Any, str], str]  # gets a Planner and the key of an iteration


class Look(Protocol):
    """The tables of a project as they were last computed, for plots: of one iteration in Dagster, of all in a report.

    shown: the iteration that is looked at.
    """

    shown: str

    def tables(self, stage: str, file: str | None = None) -> "dict[str, pl.DataFrame]":
        """By iteration, of no more than a plot holds; default file: the stage's name."""
        ...

    def scored(self, iteration: str, file: str) -> "pl.DataFrame | None":
        """A table of an iteration's scores, or of BASE; None: it is not there."""
        ...

    def scores(self) -> list[dict[str, Any]]:
        """{iteration, scores} of base and the iterations that are scored, up to the one that is looked at."""
        ...

    def verdicts(self) -> dict[str, dict[str, Any]]:
        """What the gate said, by iteration; of no more than a plot holds."""
        ...

    def labels(self) -> list[str]:
        """The normalised labels that compete with each other; none of a task with free answers."""
        ...

    @property
    def experiment(self) -> "Experiment": ...


@dataclass(frozen=True)
class Plot:
    """A plot of a stage: what was computed -> plain data -> SVG.

    data: returns what `draw` takes; None or empty: there is nothing to draw.
    """

    name: str
    title: str
    data: Callable[[Look], Any]
    draw: Callable[[Any], str]


@dataclass(frozen=True)
class Stage(Declaration):
    """One node of the dataflow; see Declaration for settings, free, identities and libraries.

    inputs: `stage`, `stage/file` (one file of its artifact, so that a change elsewhere in it cuts
        off), or a source. Reading any other input is an error (engine/view.py).
    passes_on: identities that whoever reads this stage may use too: of a policy, its base model.
    outputs: the files that it may write. main_table: the one that is meant when only the stage is named.
    lineage: column of the main table -> "stage.column" that it is taken or computed from; a column that is not
        there is made in the stage from what has no columns (a model, a file, a clock).
    plots: drawn of it.
    work: what computing it would cost, given its inputs: {"answers": rows, ...}; None: nothing of note.
    memory: names of what it does that takes a device's memory (rows/memory.py).
    verify: checks what an artifact refers to outside its folder before it is reused; raises
        CorruptArtifact. None: there is nothing outside.
    code: the module of its function; its code counts by content (world/code.py).
    asset: whether Dagster shows it as an asset of its own; what reads one that is not depends there on its inputs.
    """

    name: str
    compute: Compute
    inputs: tuple[str, ...]
    settings: tuple[str, ...]
    free: tuple[str, ...]
    identities: tuple[str, ...]
    passes_on: tuple[str, ...]
    libraries: tuple[str, ...]
    outputs: tuple[str, ...]
    main_table: str | None
    lineage: Mapping[str, tuple[str, ...]]
    plots: tuple[Plot, ...]
    work: Callable[[Any], dict[str, int]] | None
    memory: tuple[str, ...]
    verify: "Callable[[Any, Manifest], None] | None"
    code: str
    group: str
    kinds: tuple[str, ...]
    partitioned: bool
    asset: bool
    description: str

    def producers(self) -> list[str]:
        """The inputs without their file part, each once, in declared order."""
        return list(dict.fromkeys(name.split("/")[0] for name in self.inputs))

    def input_stages(self) -> list[str]:
        """Those of its inputs that are stages."""
        return [name for name in self.producers() if name in STAGES]


@dataclass(frozen=True)
class Source:
    """What stages read and none makes: something outside the store, or a result of another iteration.

    version: (planner, iteration) -> its present data version. Raises Unsettled while it has none.
    producer: (planner, iteration) -> the (iteration, stage) it is a result of, or None where it comes from outside
        this once; None for a source that is never a result.
    outside: (world, planner, iteration) -> the version that the world outside the store has at this moment; None:
        a result of another iteration, which cannot change while somebody reads it.
    stands_for: identities that whoever reads it may use.
    shown_as: names under which it stands in Dagster's graph: its own, of another source, or none.
    """

    name: str
    version: Version
    producer: Callable[[Any, str], tuple[str, str] | None] | None
    outside: Callable[[Any, Any, str], str] | None
    stands_for: tuple[str, ...]
    shown_as: tuple[str, ...]
    partitioned: bool
    description: str

    def came_from(self, planner: Any, iteration: str) -> tuple[str, str] | None:
        """The (iteration, stage) that it is a result of; None: it comes from outside the store."""
        return None if self.producer is None else self.producer(planner, iteration)


STAGES: dict[str, Stage] = {}
SOURCES: dict[str, Source] = {}


def stage(
    *,
    inputs: Iterable[str],
    outputs: Iterable[str],
    group: str,
    rows: Iterable[RowKind] = (),
    settings: Iterable[str] = (),
    free: Iterable[str] = (),
    identities: Iterable[str] = (),
    passes_on: Iterable[str] = (),
    libraries: Iterable[str] = (),
    main_table: str | None = None,
    lineage: Mapping[str, Iterable[str]] | None = None,
    plots: Iterable[Plot] = (),
    work: Callable[[Any], dict[str, int]] | None = None,
    memory: Iterable[str] = (),
    verify: "Callable[[Any, Manifest], None] | None" = None,
    kinds: Iterable[str] = (),
    partitioned: bool = True,
    asset: bool = True,
) -> Callable[[Compute], Compute]:
    """Declare the decorated function as the stage of its name; its docstring is the description.

    rows: kinds of row that it reads or computes: it declares their settings and libraries. Their identities it names
        itself, unless an input passes them on.
    """
    kinds_of_row = tuple(rows)

    def with_those_of_rows(own: Iterable[str], field: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*own, *(name for kind in kinds_of_row for name in getattr(kind, field))]))

    def declare(compute: Compute) -> Compute:
        STAGES[compute.__name__] = Stage(
            name=compute.__name__,
            compute=compute,
            inputs=tuple(inputs),
            settings=with_those_of_rows(settings, "settings"),
            free=with_those_of_rows(free, "free"),
            identities=tuple(identities),
            passes_on=tuple(passes_on),
            libraries=with_those_of_rows(libraries, "libraries"),
            outputs=tuple(outputs),
            main_table=main_table,
            lineage={column: tuple(given) for column, given in (lineage or {}).items()},
            plots=tuple(plots),
            work=work,
            memory=tuple(memory),
            verify=verify,
            code=compute.__module__,
            group=group,
            kinds=tuple(kinds),
            partitioned=partitioned,
            asset=asset,
            description=in_a_line(compute),
        )
        return compute

    return declare


def source(
    *,
    partitioned: bool = False,
    producer: Callable[[Any, str], tuple[str, str] | None] | None = None,
    outside: Callable[[Any, Any, str], str] | None = None,
    stands_for: Iterable[str] = (),
    shown_as: Iterable[str] | None = None,
) -> Callable[[Version], Version]:
    """Declare the decorated function as the version of the source of its name; its docstring is the description."""

    def declare(version: Version) -> Version:
        named = version.__name__
        SOURCES[named] = Source(
            name=named,
            version=version,
            producer=producer,
            outside=outside,
            stands_for=tuple(stands_for),
            shown_as=(named,) if shown_as is None else tuple(shown_as),
            partitioned=partitioned,
            description=in_a_line(version),
        )
        return version

    return declare


def in_a_line(function: Callable[..., Any]) -> str:
    return " ".join((function.__doc__ or "").split())


def not_repeatable(settings: dict[str, Any]) -> list[str]:
    """Which of a stage's settings, "key: value", bring in what another cold run need not give again.

    On a CPU two cold runs give the same data versions; a GPU adds up in an order of its own, and a server
    puts other requests into a batch.
    """
    doubtful = {
        "policy.device": settings.get("policy.device") == "cuda",
        "policy.backend": settings.get("policy.backend", "transformers") != "transformers",
        "assessor.rubric.endpoint": settings.get("assessor.rubric.endpoint") is not None
        and settings.get("assessor.kind") in ("rubric", "combined"),
    }
    return [f"{key}: {settings[key]}" for key, is_so in doubtful.items() if is_so]

"""A small world for the oracle test: the real graph and engine over computations that cost nothing.

Stages, planner, store, row store, landing and loop driver are the project's own. Only what a stage
computes is replaced by a short deterministic function of exactly what the real one declares
(tests/oracle_stages.py). `scratch` works the same functions out in order, with no planner, no store and no memory.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

import apt_assets.assets.order  # noqa: F401 - declares the stages
from apt_assets.engine.execute import NothingToDo, run_stage
from apt_assets.engine.plan import stages_of
from apt_assets.engine.stage import STAGES
from apt_assets.engine.step import StageBlocked
from apt_assets.landing.records import read_landed
from apt_assets.loop.next_run import End, next_run
from apt_assets.loop.turns import quarantine_damaged
from apt_assets.project import Project
from apt_assets.promotion import LoopPlanner
from apt_assets.settings.experiment import Experiment
from apt_assets.settings.iterations import BASE, key_of, number_of
from resources.store.digest import digest_json
from resources.store.kinds import RowKind
from tests.oracle_stages import CODE, FUNCTIONS, PIECE

OUTSIDE = (
    "base_model", "execution", "initial_adapter", "anchor_folder", "encoder", "grader", "grader_execution",
    "human_grades", "benchmark_tasks",
)  # fmt: skip


class World(Project):
    """A project whose models are one-number files and whose code is a table.

    code: piece -> [text, effect]; a stage's digest is of the text, what it computes depends on the effect.
    """

    def __init__(self, home: Path):
        super().__init__(Experiment(name="t", loop={"max_iterations": 2}, anchor={"texts": 3}), home)
        self.pieces = {piece: [0, 0] for stage in CODE.values() for piece in stage}
        for name in OUTSIDE:
            if not (home / name).exists():
                self.overwrite(name, 0)
        self.landing.mkdir(parents=True, exist_ok=True)

    def overwrite(self, name, value):
        (self.home / name).write_text(str(value))

    def outside(self, name):
        """What a stage reads of it: a number, or which adapter the loop starts from."""
        return self.identity(name) if name == "initial_adapter" else int((self.home / name).read_text())

    def identity(self, name):
        path = self.home / name
        return "none" if name == "initial_adapter" and path.read_text() == "0" else self._digests.file(path)

    def code(self, start):
        name = start.partition(":")[2]
        return {piece: str(self.pieces[piece][0]) for piece in CODE.get(name, ())} if name in FUNCTIONS else {start: ""}

    def planner(self):
        return LoopPlanner(self.experiment, self.store, self)

    def code_changed(self, start, planned):
        return None

    def find_out(self, names):
        return []

    def check(self):
        """Its models are numbers."""

    def effects(self, stage):
        return {piece: self.pieces[piece][1] for piece in CODE.get(stage, ())}

    def set(self, section, **values):
        before = getattr(self.experiment, section)
        changed = type(before).model_validate({**before.model_dump(), **values})
        self.experiment = self.experiment.model_copy(update={section: changed})

    def landed_rows(self, names):
        """[prompt, gold, metadata] of files, one per prompt: of contradicting rows the first by content."""
        found = {}
        for name in sorted(names):
            path = self.landing / name
            if path.is_file():
                columns = ("record", "prompt", "answer", "metadata")
                rows = [row for part in read_landed(path) for row in part.rows.select(columns).iter_rows()]
                for _, prompt, answer, metadata in sorted(rows):
                    found.setdefault(prompt, [prompt, int(answer), metadata])
        return sorted(found.values())


# -- through the engine --------------------------------------------------------------------------------


class Engine:
    """Runs the loop over a world through the real planner, store and driver; counts what it computes."""

    def __init__(self, world: World):
        self.world = world
        self.seen: set[str] = set()
        self.repeated: list[str] = []
        self.forgiven: set[str] = set()  # lost on purpose: may be computed once more

    def stages(self):
        """The stages with their computation replaced."""
        return {
            name: dataclasses.replace(
                stage,
                compute=self.computing(name),
                code=f"oracle:{name}",
                libraries=(),
                work=None,
                verify=None,
                outputs=(*stage.outputs, "index.json"),
            )
            for name, stage in STAGES.items()
        }

    def computing(self, name):
        def compute(step):
            inputs = {given: self.read(step, given) for given in step.stage.inputs}
            if {"landing_files", "landing_folder"} & set(inputs):
                inputs = {"rows": self.world.landed_rows(path.name for path in step.landed())}
            settings = step.plan.facts["settings"]
            outside = {i: self.world.outside(i) for i in step.stage.identities}
            landed = [v for k, v in step.plan.inputs.items() if k.startswith("landing_")]
            self.count([name, inputs, landed, settings, outside, step.plan.facts["code"]])

            def fill(kind, context, rows, function):
                text = step.plan.facts["code"][PIECE[kind]]

                def rows_of(missing):
                    for start in range(0, len(missing), 3):
                        part = missing[start : start + 3]
                        for i in part:
                            self.count([kind, context, text, rows[i]])
                        yield part, [function(rows[i]) for i in part]

                keys = [digest_json(row) for row in rows]
                of = RowKind(f"oracle's {kind}", table=kind, code=(), given=("context",))
                values = step.fill(
                    of, keys, lambda scope, missing: rows_of(missing), kind, "rows", context=[context, text]
                )
                names = [row if isinstance(row, str) else json.dumps(row) for row in rows]
                return dict(zip(names, values.values, strict=True))

            for file, content in FUNCTIONS[name](inputs, settings, outside, self.world.effects(name), fill).items():
                (step.out / file).write_text(json.dumps(content, sort_keys=True))
                if file == "bad_cases.parquet":
                    step.facts["rows"] = len(content)
                if file == "preference_pairs.parquet":
                    step.facts["bad_cases"] = content["cases"]
            if name == "retrieval_index":
                step.facts["vectors"] = "vectors"  # gc asks which tables are in use

        return compute

    def count(self, work):
        key = json.dumps(work, sort_keys=True)
        if key in self.seen and key not in self.forgiven:
            self.repeated.append(key[:200])
        self.forgiven.discard(key)
        self.seen.add(key)

    def read(self, step, given):
        """The content behind one declared input."""
        producer, _, file = given.partition("/")
        if producer in STAGES:
            folder = step.artifact(producer, file or None)
            return json.loads(folder.read_text()) if file else content_of(folder)
        if given == "reference_scores":
            return json.loads(step.artifact(given, "domain_items.parquet").read_text())
        version = step.plan.inputs[given]
        if given == "previous_adapter":
            return [version, content_of(step.artifact(given)) if step.producer(given) else {}]
        return version

    def run(self):
        """Drive the loop to its end, as `run --reopen` does; returns how it ended."""
        for key in self.world.without_files():
            self.world.open_iteration(key, anew=True)
        verified: set[str] = set()
        quarantine_damaged(self.world, verified)
        for _ in range(40):
            decision = next_run(self.world, self.world.planner())
            if isinstance(decision, End):
                if quarantine_damaged(self.world, verified):
                    continue
                return decision
            if decision.opens:
                self.world.open_iteration(decision.key)
            planned = [plan.stage for plan in decision.stages] or stages_of(decision.key)
            for name in planned:
                try:
                    run_stage(self.world, decision.key, name, run_id="r")
                except (NothingToDo, StageBlocked):
                    break
        raise AssertionError("the loop does not end")

    def results(self):
        """{(iteration, stage): content} of everything that is fresh."""
        planner, found = self.world.planner(), {}
        for key in [BASE, *self.world.store.iterations("t")]:
            for name in stages_of(key):
                plan = planner.stage(key, name)
                if plan.status == "fresh" and not plan.manifest.collected:
                    found[key, name] = content_of(self.world.store.verify(plan.manifest))
                elif plan.status == "fresh":
                    found[key, name] = None
        return found


def content_of(folder: Path) -> dict:
    return {p.name: json.loads(p.read_text()) for p in sorted(folder.iterdir())}


def adapter_version(content):
    """Identity of an adapter: the digests of its two files, as the planner has it."""
    files = (content[name] for name in ("adapter_config.json", "adapter_model.safetensors"))
    return digest_json([hashlib.sha256(json.dumps(file, sort_keys=True).encode()).hexdigest() for file in files])


# -- from scratch --------------------------------------------------------------------------------------


def scratch(world: World, snapshots: dict[str, list[str]]) -> dict:
    """{(iteration, stage): content} worked out in order, without memory; what the loop never reaches is
    left out, as after a refused gate without new data."""
    found: dict = {}

    def compute(key, name, inputs):
        stage = STAGES[name]
        settings = stage.settings_slice(world.experiment)
        outside = {i: world.outside(i) for i in stage.identities}

        def fill(kind, context, rows, function):
            return {row if isinstance(row, str) else json.dumps(row): function(row) for row in rows}

        content = FUNCTIONS[name](inputs, settings, outside, world.effects(name), fill)
        found[key, name] = json.loads(json.dumps(content))

    def to_beat(key):
        if key == BASE:
            return found[BASE, "base_scores"]["domain_items.parquet"]
        scaled = found[key, "gate"].get("domain_items.parquet")
        return found[key, "benchmark_scores"]["domain_items.parquet"] if scaled is None else scaled

    def value(key, given, promoted):
        producer, _, file = given.partition("/")
        if producer in STAGES:
            content = found[key if STAGES[producer].partitioned else BASE, producer]
            return content[file] if file else content
        return {
            "iteration": key,
            "promoted_count": str(len(promoted)),
            "previous_adapter": [adapter_version(adapter), adapter]
            if (adapter := promoted and found[promoted[-1], "promoted_adapter"])
            else [world.identity("initial_adapter"), {}],
            "reference_scores": to_beat(promoted[-1] if promoted else BASE),
        }[given]

    promoted: list[str] = []
    compute(BASE, "heldout_rows", {"rows": world.landed_rows(world.landed())})
    compute(BASE, "base_scores", {"heldout_rows": found[BASE, "heldout_rows"]})
    compute(BASE, "judge_calibration", {"heldout_rows/labels.json": found[BASE, "heldout_rows"]["labels.json"]})
    compute(BASE, "anchor_texts", {})
    ended = False
    digests = {key: world.landing_files(key) for key in snapshots}
    for key in sorted(snapshots):
        if ended and digests[key] == digests[key_of(number_of(key) - 1)]:
            break
        ended = False
        for name in stages_of(key):
            given = STAGES[name].inputs
            inputs = (
                {"rows": world.landed_rows(snapshots[key])}
                if "landing_files" in given
                else {one: value(key, one, promoted) for one in given}
            )
            if name == "promoted_adapter" and not found[key, "gate"]["verdict.json"]["passed"]:
                ended = True
                break
            compute(key, name, inputs)
            pairs, content = world.experiment.pairs, found[key, name]
            whole_pool = pairs.replay == "pool" and pairs.replay_share is None
            none_found = name == "bad_cases" and not content["bad_cases.parquet"]
            all_left_out = name == "preference_pairs" and pairs.max_doubt is not None
            all_left_out = all_left_out and not content["preference_pairs.parquet"]["cases"]
            if (none_found or all_left_out) and not whole_pool:
                ended = True
                break
        if ended:
            # Stages that do not need a bad case are there all the same.
            continue
        promoted.append(key)
    return found

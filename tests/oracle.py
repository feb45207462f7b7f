"""A small world for the oracle test: the real graph and engine over computations that cost nothing.

Stages, planner, store, row store, landing and loop driver are the project's own. Only what a stage
computes is replaced by a short deterministic function of exactly what the real one declares. Each
function is coarse, so that different inputs often give the same output, as real edits do. `scratch`
works the same functions out in order, with no planner, no store and no memory.
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
from apt_assets.settings.iterations import ADAPTER_PARTS, BASE, key_of, number_of
from resources.store.digest import digest_json
from resources.store.kinds import RowKind


def small(value, size):
    """A number below `size` that depends on all of `value`."""
    return int(hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest(), 16) % size


# -- what the stages compute: functions of their declared inputs, settings and code, nothing else ------


def answer(policy, settings, code, prompt):
    return small([policy, settings["policy.max_new_tokens"], code["generate"], prompt], 4)


def grade(code, prompt, gold, said):
    return 5 if said == gold else 1 + small([code["grade"], prompt, gold, said], 4)


def split(rows, shares):
    parts = {"train": [], "validation": [], "test": []}
    for prompt, gold, _ in rows:
        bucket = small(["split", prompt], 10)
        name = "test" if bucket < 10 * shares["data.test"] else "train"
        parts["validation" if bucket == 9 and shares["data.validation"] else name].append([prompt, gold])
    return {name: sorted(part) for name, part in parts.items()}


def graded(world, part, answers, code):
    return [[p, g, answers[p], grade(code, p, g, answers[p])] for p, g in part]


def domain_dataset(inputs, settings, outside, code, fill):
    parts = split(inputs["rows"], settings)
    given = [[prompt, (gold + 2) % 4] for prompt, gold in parts["train"] if small(["came with it", prompt], 3) == 0]
    tables = {f"{name}.parquet": part for name, part in parts.items()}
    origins = sorted(inputs["rows"])
    return {**tables, "rejected_answers.parquet": given, "provenance.parquet": origins, "corrections.parquet": []}


def heldout_rows(inputs, settings, outside, code, fill):
    parts = split(inputs["rows"], settings)
    golds = sorted({gold for _, gold in parts["train"]})
    return {"validation.parquet": parts["validation"], "test.parquet": parts["test"], "labels.json": golds}


def retrieval_index(inputs, settings, outside, code, fill):
    prompts = [p for p, _ in inputs["domain_dataset/train.parquet"]]
    return {
        "index.json": fill(
            "embeddings",
            [outside["encoder"], code["embed"]],
            prompts,
            lambda p: small([outside["encoder"], code["embed"], p], 9),
        )
    }


def policy(inputs, settings, outside, code, fill):
    adapter, parts = inputs["previous_adapter"]
    known = [outside["base_model"], outside["execution"], adapter, settings["policy.dtype"], inputs["promoted_count"]]
    return {"policy.json": known, **parts}


def ask(policy_of, settings, code, part, fill):
    context = [policy_of, settings["policy.max_new_tokens"], code["generate"]]
    said = fill("answers", context, [p for p, _ in part], lambda p: answer(policy_of, settings, code, p))
    rows = [[p, g, said[p]] for p, g in part]
    marks = fill("grades", [code["grade"]], rows, lambda row: grade(code, *row))
    return [[*row, marks[json.dumps(row)]] for row in rows]


def draw_by(inputs, settings, what):
    return lambda row: small([what, inputs["iteration"], settings["mining.seed"], row[0]], 10**6)


def eval_predictions(inputs, settings, outside, code, fill):
    train = inputs["domain_dataset/train.parquet"]
    most = settings["mining.questions"] or len(train)
    drawn = sorted(train, key=draw_by(inputs, settings, "mining"))[:most]
    return {"eval_predictions.parquet": ask(inputs["policy"], settings, code, sorted(drawn), fill)}


def bad_cases(inputs, settings, outside, code, fill):
    below = settings["assessor.bad_below"] + code["select"]
    return {
        "bad_cases.parquet": [row for row in inputs["eval_predictions"]["eval_predictions.parquet"] if row[3] < below]
    }


def neighbors(inputs, settings, outside, code, fill):
    index, train = inputs["retrieval_index"]["index.json"], dict(inputs["domain_dataset/train.parquet"])
    found = set()
    for prompt, *_ in inputs["bad_cases"]["bad_cases.parquet"]:
        near = sorted(index, key=lambda p: (abs(index[p] - index[prompt]), p))
        found |= set(near[1 : 1 + settings["retrieval.per_case"]])
    if settings["retrieval.choose"] == "random":
        ranked = sorted(train, key=lambda p: (small([settings["mining.seed"], inputs["iteration"], p], 10**6), p))
        found = ranked[: len(found)]
    return {"neighbors.parquet": [[p, train[p]] for p in sorted(found) if p in train]}


def similar_predictions(inputs, settings, outside, code, fill):
    similar = inputs["neighbors"]["neighbors.parquet"]
    return {"similar_predictions.parquet": ask(inputs["policy"], settings, code, similar, fill)}


def doubtful_golds(inputs, settings, outside, code, fill):
    index, train = inputs["retrieval_index"]["index.json"], dict(inputs["domain_dataset/train.parquet"])
    similar = inputs["similar_predictions"]["similar_predictions.parquet"]
    wrong = [row for row in similar if row[3] < settings["assessor.bad_below"]]
    cases = [row[:3] for row in [*inputs["bad_cases"]["bad_cases.parquet"], *wrong]]
    context = [inputs["policy"], settings["policy.max_new_tokens"], code["weigh"]]
    weighed = fill("likelihoods", context, cases, lambda case: small([*context, case], 5))
    doubts = {}
    for prompt, gold, said in cases:
        near = min((p for p in index if p != prompt), key=lambda p: (abs(index[p] - index[prompt]), p), default=prompt)
        doubts[prompt] = weighed[json.dumps([prompt, gold, said])] / 10 + (train.get(near) != gold) / 2
    return {"doubtful.parquet": doubts}


def preference_pairs(inputs, settings, outside, code, fill):
    doubts, most = inputs["doubtful_golds"]["doubtful.parquet"], settings["pairs.max_doubt"]
    out = {prompt for prompt, doubt in doubts.items() if most is not None and doubt > most}
    similar = inputs["similar_predictions"]["similar_predictions.parquet"]
    bad = [row for row in inputs["bad_cases"]["bad_cases.parquet"] if row[0] not in out]
    below = settings["assessor.bad_below"]
    wrong = [row for row in similar if row[3] < below and row[0] not in out]
    use_given = settings["pairs.rejected"] == "given"
    given = dict(inputs["domain_dataset/rejected_answers.parquet"]) if use_given else {}
    right = [row[:2] for row in similar if row[3] >= below]
    made = counterfactuals(inputs, settings, code, [row for row in right if row[0] not in given], fill)
    rows = [[p, g, given[p], None] if p in given else [p, g, said, its] for p, g, said, its in [*bad, *wrong]]
    if settings["pairs.counterfactual"] != "none":
        rows += [[prompt, gold, given[prompt], None] for prompt, gold in right if prompt in given]
    pairs = sorted({json.dumps(row) for row in [*rows, *(row for row in made if row[3] < below)]})
    if settings["pairs.replay"] == "pool":
        paired, share = {json.loads(row)[0] for row in pairs}, settings["pairs.replay_share"]
        rest = [row for row in inputs["domain_dataset/train.parquet"] if row[0] not in paired | out]
        most = len(rest) if share is None else round(share * len(pairs))
        drawn = sorted(rest, key=draw_by(inputs, settings, "replay"))[:most]
        pairs += [json.dumps([prompt, gold, gold, None]) for prompt, gold in sorted(drawn)]
    return {
        "preference_pairs.parquet": {"cases": len(bad), "pairs": pairs},
        "training_pairs.parquet": list(dict.fromkeys(json.dumps(json.loads(row)[:3]) for row in pairs)),
    }


def counterfactuals(inputs, settings, code, right, fill):
    """[prompt, gold, another answer, its grade] for what was answered right."""
    if settings["pairs.counterfactual"] == "none":
        return []
    said = {p: (g + 1) % 4 for p, g in right}
    if settings["pairs.counterfactual"] == "sampled":
        context = [inputs["policy"], settings["policy.max_new_tokens"], settings["pairs.temperature"], code["generate"]]
        said = fill("answers", context, list(said), lambda p: small([*context, p], 4))
    rows = [[p, g, said[p]] for p, g in right]
    marks = fill("grades", [code["grade"]], rows, lambda row: grade(code, *row))
    return [[*row, marks[json.dumps(row)]] for row in rows]


def anchor_texts(inputs, settings, outside, code, fill):
    start = [outside["base_model"], outside["initial_adapter"], outside["execution"], settings["policy.dtype"]]
    context, texts = [start, settings["anchor.tokens"], code["write"]], list(range(settings["anchor.texts"]))
    written = fill("anchors", context, texts, lambda n: small([*context, n], 10**6))
    own, share = outside["anchor_folder"], settings["anchor.chat_share"]
    rows = [[n, text, own, share] for n, text in written.items()]
    return {"anchor_texts.parquet": rows, "likely.safetensors": [len(rows), settings["anchor.form"]]}


def screened_texts(inputs, settings, outside, code, fill):
    measured = [prompt for part in ("validation", "test") for prompt, _ in inputs[f"domain_dataset/{part}.parquet"]]
    mark = small([measured, outside["benchmark_tasks"]], 3)
    rows = inputs["anchor_texts/anchor_texts.parquet"]
    return {"screened_texts.parquet": [place for place, (_, text, *_) in enumerate(rows) if text % 3 != mark]}


def adapter_checkpoint(inputs, settings, outside, code, fill):
    made = small(
        [
            inputs["preference_pairs/training_pairs.parquet"],
            inputs["policy"],
            settings["training.objective"],
            settings["training.beta"],
            [inputs["anchor_texts/anchor_texts.parquet"][n] for n in inputs["screened_texts/screened_texts.parquet"]],
            settings["anchor.weight"],
            inputs["anchor_texts/likely.safetensors"],
            code["train"],
        ],
        6,
    )
    return {
        "adapter_model.safetensors": made,
        "adapter_config.json": 1,
        "training_log.parquet": settings["training.beta"],
    }


def scores(policy_of, settings, outside, code, parts, fill):
    items = {name: ask(policy_of, settings, code, parts[name], fill) for name in ("validation", "test")}
    tasks = [outside["benchmark_tasks"] * 10 + n for n in range(3)]
    general = fill("scores", [policy_of, code["score"]], tasks, lambda item: small([policy_of, code["score"], item], 3))
    passages = small([policy_of, code["score"], "passages"], 3)
    return {"domain_items.parquet": items, "general_items.parquet": general, "passage_items.parquet": passages}


def base_scores(inputs, settings, outside, code, fill):
    start = [outside["base_model"], outside["initial_adapter"], settings["policy.dtype"]]
    parts = {n: inputs["heldout_rows"][f"{n}.parquet"] for n in ("validation", "test")}
    found = scores(start, settings, outside, code, parts, fill)
    return {**found, "start.json": outside["initial_adapter"] == "none"}


def judge_calibration(inputs, settings, outside, code, fill):
    return {"confusion.json": small([outside["human_grades"], inputs["heldout_rows/labels.json"]], 3)}


def benchmark_scores(inputs, settings, outside, code, fill):
    new = [
        inputs["policy"],
        *(inputs[f"adapter_checkpoint/{f}"] for f in ("adapter_model.safetensors", "adapter_config.json")),
    ]
    parts = {n: inputs[f"domain_dataset/{n}.parquet"] for n in ("validation", "test")}
    return scores(new, settings, outside, code, parts, fill)


def gate(inputs, settings, outside, code, fill):
    def share(items):
        rows = items["validation"]
        return sum(row[3] >= 4 for row in rows) / max(len(rows), 1)

    ours, theirs = share(inputs["benchmark_scores/domain_items.parquet"]), share(inputs["reference_scores"])
    general = sum(inputs["base_scores/general_items.parquet"].values()) - sum(
        inputs["benchmark_scores/general_items.parquet"].values()
    )
    general += inputs["benchmark_scores/passage_items.parquet"] - inputs["base_scores/passage_items.parquet"]
    gained = ours - theirs >= -settings["gate.domain_tolerance"]
    # As it was trained, or else at the largest scale at which little enough is lost.
    scales = [1, *sorted(settings["promotion.scales"], reverse=True)]
    scale = next((scale for scale in scales if scale * general <= 2), 1)
    passed = gained and scale * general <= 2
    check = {"name": "domain", "candidate": ours, "reference": theirs, "difference": ours - theirs, "against": "x"}
    reason = (
        f"{ours} {theirs} {general} {inputs['base_scores/start.json']} {inputs['judge_calibration/confusion.json']}"
    )
    found = {"verdict.json": {"passed": passed, "reason": reason, "checks": [check], "scale": scale if passed else 1}}
    if passed and scale != 1:
        rows = inputs["benchmark_scores/domain_items.parquet"]
        found["domain_items.parquet"] = {part: its[: round(scale * len(its))] for part, its in rows.items()}
    return found


def promoted_adapter(inputs, settings, outside, code, fill):
    config, weights = (inputs[f"adapter_checkpoint/{file}"] for file in ADAPTER_PARTS)
    return {ADAPTER_PARTS[0]: config, ADAPTER_PARTS[1]: inputs["gate/verdict.json"]["scale"] * weights}


FUNCTIONS = {f.__name__: f for f in (
    heldout_rows, base_scores, judge_calibration, anchor_texts, domain_dataset, retrieval_index, policy,
    eval_predictions, bad_cases, neighbors, similar_predictions, doubtful_golds, preference_pairs, screened_texts,
    adapter_checkpoint, benchmark_scores, gate, promoted_adapter,
)}  # fmt: skip
# Which pieces of code each stage can reach.
CODE = {
    "base_scores": ("generate", "grade", "score"),
    "benchmark_scores": ("generate", "grade", "score"),
    "eval_predictions": ("generate", "grade"),
    "similar_predictions": ("generate", "grade"),
    "preference_pairs": ("generate", "grade"),
    "bad_cases": ("select",),
    "doubtful_golds": ("weigh",),
    "retrieval_index": ("embed",),
    "adapter_checkpoint": ("train",),
    "anchor_texts": ("write",),
}

PIECE = {
    "answers": "generate", "grades": "grade", "embeddings": "embed", "scores": "score", "anchors": "write",
    "likelihoods": "weigh",
}  # fmt: skip


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
        """Drive the loop to its end; returns how it ended."""
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

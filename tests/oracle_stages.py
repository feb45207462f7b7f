"""What the stages of the oracle's small world compute: functions of their declared inputs, settings and code, and of
nothing else. Each is coarse, so that different inputs often give the same output, as real edits do."""

import hashlib
import json

from apt_assets.settings.iterations import ADAPTER_PARTS


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

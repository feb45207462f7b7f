"""Where the columns of each stage's main table come from: stage -> column -> ["stage.column", ...].

Only what is taken over or computed from columns of other tables; a column that is not here is made
in its stage from something that has no columns (a model, a file, a clock).
"""

SAME = ("row_id", "prompt", "answer")
ANSWERED = {
    **{name: [f"domain_dataset.{name}"] for name in SAME},
    "prediction": ["domain_dataset.prompt"],
    "grade": ["domain_dataset.prompt", "domain_dataset.answer"],
    "exact": ["domain_dataset.answer"],
}
LOGGED = ("loss", "margin", "reward_accuracy", "grad_norm")

LINEAGE: dict[str, dict[str, list[str]]] = {
    "retrieval_index": {"row_id": ["domain_dataset.row_id"], "check": ["domain_dataset.prompt"]},
    "eval_predictions": ANSWERED,
    "bad_cases": {name: [f"eval_predictions.{name}"] for name in ANSWERED},
    "neighbors": {
        "row_id": ["retrieval_index.row_id"],
        "case_id": ["bad_cases.row_id"],
        "rank": ["bad_cases.prompt", "retrieval_index.check"],
        "similarity": ["bad_cases.prompt", "retrieval_index.check"],
        "prompt": ["domain_dataset.prompt"],
        "answer": ["domain_dataset.answer"],
    },
    "preference_pairs": {
        "row_id": ["bad_cases.row_id", "neighbors.row_id", "eval_predictions.row_id"],
        "case_id": ["bad_cases.row_id", "neighbors.case_id"],
        "kind": ["bad_cases.grade", "eval_predictions.grade"],
        "prompt": ["bad_cases.prompt", "neighbors.prompt", "eval_predictions.prompt"],
        "chosen": ["bad_cases.answer", "neighbors.answer", "eval_predictions.answer"],
        "rejected": [
            "bad_cases.prediction",
            "neighbors.prompt",
            "neighbors.answer",
            "eval_predictions.prediction",
            "domain_dataset.answer",
        ],
        "grade": ["bad_cases.grade", "neighbors.answer", "eval_predictions.grade"],
    },
    "adapter_checkpoint": {
        name: [f"preference_pairs.{column}" for column in ("prompt", "chosen", "rejected")] for name in LOGGED
    },
    "benchmark_scores": ANSWERED,
    "base_scores": {},
}

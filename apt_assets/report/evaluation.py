"""Scores as the Hugging Face hub takes evaluation results: the `model-index` of a model card."""

from typing import TYPE_CHECKING, Any

from apt_assets.report.results import passages_of

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

GENERATION = "text-generation"


def eval_results(domain: str, scores: dict[str, Any]) -> "list[EvalResult]":
    """Facts of scores -> one result for each score of the domain, by split, and of each general task. Shares are 0 to
    1; the 95 % interval and the number of rows are arguments of the metric."""
    from huggingface_hub import EvalResult

    found: list[EvalResult] = []
    if not scores:
        return found

    def add(dataset: str, split: str, metric: str, name: str, value: float, arguments: dict[str, Any]) -> None:
        found.append(
            EvalResult(
                task_type=GENERATION,
                dataset_type=dataset,
                dataset_name=dataset,
                dataset_split=split,
                metric_type=metric,
                metric_name=name,
                metric_value=value,
                metric_args=arguments,
            )
        )

    for split in ("test", "validation"):
        for kind, metric, name in (
            ("exact", "exact_match", "answered exactly"),
            ("lenient", "accuracy", "graded 4 or 5 of 5"),
        ):
            share = scores["domain"][split][kind]
            if share["n"]:
                add(domain, split, metric, name, share["mean"], {part: share[part] for part in ("low", "high", "n")})
    for task, its in scores["general"].items():
        share = its["accuracy"]
        if task != "all" and share["n"]:
            arguments = {part: share[part] for part in ("low", "high", "n")}
            add(task, "test", "accuracy", "accuracy, by length", share["mean"], arguments)
    for task, its in passages_of(scores).items():
        add(task, "test", "perplexity", "word perplexity", its["word_perplexity"], {"n": its["n"], "se": its["se"]})
    return found

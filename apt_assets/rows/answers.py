"""Answer and grade questions: what mining, pairing and benchmarks all do, in one place.

Both are reused row by row. An answer is keyed by the policy's content, how it generates, and the
question; for grades see apt_assets/rows/grades.py.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from apt_assets.engine.view import Adapter, View
from apt_assets.rows.grades import grade_keys, grade_rows, grade_tables
from apt_assets.rows.policy import open_policy, policy_context
from resources.store.digest import digest_rows
from resources.store.rows import Batches, RowTable, renumber

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.engine.step import Step


def answerer(step: "Step", adapter: Adapter | None) -> Callable[[Sequence[str]], Batches[str]]:
    """What answers prompts as the base model with `adapter`, by `policy.backend`: it yields their positions and the
    answers as these come."""
    from resources.model.policy import Reader, load_tokenizer

    settings = step.settings.policy
    if settings.backend == "transformers":
        from resources.model.generation import generate

        policy = open_policy(step, adapter)
        return partial(generate, policy, max_new_tokens=settings.max_new_tokens, batch_tokens=settings.batch_tokens)
    folder, weights = step.base_model(), None if adapter is None else adapter.folder
    reader = Reader(load_tokenizer(folder), settings.system_prompt)
    if settings.backend == "vllm":
        from resources.model.vllm import generate_in_vllm

        return partial(
            generate_in_vllm, reader, folder, weights, dtype=settings.dtype, max_new_tokens=settings.max_new_tokens
        )
    from resources.model.openai_server import Served, generate_served, served_name

    base = step.identity("base_model")
    # Not by the declared settings alone: how many questions are under way decides no answer.
    server = step.project.experiment.policy.server
    served = Served(
        url=settings.server.url,
        base=served_name(base, None),
        name=served_name(base, None if adapter is None else adapter.digest),
        base_folder=folder,
        adapter_folder=weights,
        concurrency=server.concurrency,
        timeout=server.timeout,
    )
    return partial(generate_served, reader, served, max_new_tokens=settings.max_new_tokens)


GENERATORS = {
    "transformers": ("resources.model.policy", "resources.model.generation"),
    "vllm": ("resources.model.policy", "resources.model.vllm"),
    "openai": ("resources.model.policy", "resources.model.openai_server"),
}


def answer_rows(view: View, adapter: Adapter | None) -> RowTable:
    """Answers of this policy, by question."""
    code = view.code(*GENERATORS[view.settings.policy.backend])
    return view.row_table("answers", {**answer_context(view, adapter), "code": code})


def answer_context(view: View, adapter: Adapter | None) -> dict[str, Any]:
    """What decides an answer, except the question and the code."""
    settings = view.settings.policy
    return {
        **policy_context(view, adapter),
        "system_prompt": settings.system_prompt,
        "max_new_tokens": settings.max_new_tokens,
        "batch_tokens": settings.batch_tokens,
        "backend": [settings.backend, settings.server.url, settings.server.engine],
    }


def answer_and_grade(
    step: "Step", adapter: Adapter | None, questions: "pl.DataFrame", labels: list[str], what: str
) -> "pl.DataFrame":
    """Examples (row_id, prompt, answer) -> Predictions, in the order of `questions`."""
    import polars as pl

    from schemas.tables import Predictions

    prompts, golds = questions["prompt"].to_list(), questions["answer"].to_list()

    def answer(missing: list[int]) -> Batches[str]:
        return renumber(answerer(step, adapter)([prompts[i] for i in missing]), missing)

    said = step.fill(answer_rows(step, adapter), answer_keys(prompts), answer, what, "answers").values
    graded = grade_rows(step, labels, prompts, golds, said, what)
    return (
        questions.select("row_id", "prompt", "answer")
        .with_columns(
            pl.Series("prediction", said, dtype=pl.String),
            pl.Series("grade", [grade for grade, _ in graded], dtype=pl.Int8),
            pl.Series("exact", [exact for _, exact in graded], dtype=pl.Boolean),
        )
        .cast(Predictions.empty().schema)  # type: ignore[arg-type]
    )


def work_to_answer(view: View, adapter: Adapter | None, questions: "pl.DataFrame", labels: list[str]) -> dict[str, int]:
    """Rows that `answer_and_grade` would compute: {answers, grades}. An answer that is not there yet
    counts as one grade more; it may turn out to be one that was graded before."""
    prompts, golds = questions["prompt"].to_list(), questions["answer"].to_list()
    keys = answer_keys(prompts)
    answers = answer_rows(view, adapter).read(keys)
    known = [(prompts[n], golds[n], answers[key]) for n, key in enumerate(keys) if key in answers]
    tables = grade_tables(view, labels)
    ungraded = sum(t.missing(grade_keys(*zip(*known, strict=True))) for t in tables.values()) if known else 0
    missing = len(set(keys)) - len(answers)
    return {"answers": missing, "grades": missing * len(tables) + ungraded}


def answer_keys(prompts: Sequence[str]) -> list[str]:
    return digest_rows(prompts, digits=32)

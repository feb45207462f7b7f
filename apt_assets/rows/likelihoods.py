"""How likely the policy finds the gold and what it said itself, by question and both answers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from apt_assets.engine.scope import RowScope
from apt_assets.engine.spread import spread
from apt_assets.engine.view import View
from apt_assets.rows import policy
from resources.store.digest import digest_rows
from resources.store.kinds import RowKind
from resources.store.rows import Batches, RowTable, renumber

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.engine.step import Step
    from resources.model.packing import Ids
    from resources.model.scoring import Scores

LIKELIHOODS = RowKind(
    "likelihoods",
    table="likelihoods",
    settings=(*policy.SETTINGS, "policy.system_prompt", "policy.max_new_tokens", "policy.batch_tokens"),
    identities=policy.IDENTITIES,
    libraries=policy.LIBRARIES,
    given=("adapter",),
    code=(__name__,),
    memory="scores",
)

MeanLogProbs = list[float | None]  # of each answer, in nats per token; None of one without a token


def likelihood_rows(view: View) -> RowTable:
    return view.rows(LIKELIHOODS, adapter=policy.adapter_of(view, "policy"))


def likelihood_keys(predictions: "pl.DataFrame") -> list[str]:
    return digest_rows(*(predictions[name].to_list() for name in ("prompt", "answer", "prediction")), digits=32)


def likelihoods_of(step: "Step", predictions: "pl.DataFrame") -> "pl.DataFrame":
    """(row_id, log_prob_gold, log_prob_prediction), in nats per token; null of a prediction without a token."""
    import polars as pl

    rows = predictions.select("prompt", "answer", "prediction").rows()
    found = step.fill(
        LIKELIHOODS,
        likelihood_keys(predictions),
        lambda scope, missing: renumber(spread(score, scope, [rows[i] for i in missing]), missing),
        "likelihood of golds and answers",
        "cases",
        adapter=policy.adapter_of(step, "policy"),
    ).values
    columns = dict.fromkeys(("log_prob_gold", "log_prob_prediction"), pl.Float64)
    return predictions.select("row_id").hstack(pl.DataFrame(found, schema=columns, orient="row"))


def score(scope: RowScope, rows: Sequence[tuple[str, ...]]) -> Batches[MeanLogProbs]:
    """rows: (question, answers ...). An answer is read as far as the policy may go on, `policy.max_new_tokens`: of one
    that was cut there, that it did not end is nothing to hold against it."""
    from resources.model.prompts import beginning
    from resources.model.scoring import Question, score_answers
    from resources.training.examples import answer_turn, tokenise

    settings = scope.settings.policy
    opened = policy.open_policy(scope, settings.system_prompt)
    turn, asked = answer_turn(opened), []
    for prompt, *answers in rows:
        context, ids = tokenise(opened, turn, prompt, answers)
        asked.append((context, [its[: settings.max_new_tokens] for its in ids]))
    questions = [Question(context, tuple(filter(None, ids))) for context, ids in asked]
    scored = score_answers(opened.model, questions, batch_tokens=settings.batch_tokens, prefix=beginning(opened))
    for places, scores in scored:
        yield places, [means(asked[place][1], its) for place, its in zip(places, scores, strict=True)]


def means(answers: "Sequence[Ids]", scores: "Scores") -> MeanLogProbs:
    """scores: of the answers that have a token."""
    sums = iter(scores)
    return [next(sums)[0] / len(ids) if ids else None for ids in answers]

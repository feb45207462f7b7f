"""The columns of every table: type, range, meaning and unit. One class per table.

Text is UTF-8. A `row_id` is the first 16 hex digits of the sha256 of the normalised prompt
(`apt_assets.method.splits.row_id`): the same question has the same id in every table and iteration.
"""

from typing import Any

import pandera.polars as pa
import polars as pl

GRADE = "1-5: 5 equal, 4 right, 3 hedged, 2 near or another label, 1 unrelated (resources/assessors)"
ALSO = "JSON list of further answers that are right, sorted; null: there are none"
RECORD = "what the row says, 16 hex digits; `apt-assets show` looks up on which line that stands"
REJECTED = (
    "the policy's own answer, or the one that came with the row (pairs.rejected); of a counterfactual pair a changed "
    "gold, a sampled answer or that one; of a replay row the gold"
)
PER_TOKEN = "nats per token, as far as policy.max_new_tokens; null: not asked, as what it said is no label"
WEIGHT = "what its loss is multiplied by, 0-1; below 1 where its gold is doubtful (pairs.doubtful)"
ROW_ID = "16 hex digits, identity of the question"


def row_id(**more: Any) -> Any:
    return pa.Field(str_matches=r"^[0-9a-f]{16}$", description=ROW_ID, **more)


class Table(pa.DataFrameModel):
    class Config:
        strict = True
        coerce = False


class Examples(Table):
    """Questions of one split with their gold answers, sorted by row_id."""

    row_id: str = row_id(unique=True)
    prompt: str = pa.Field(str_length={"min_value": 1}, description="the question as the user asks it")
    answer: str = pa.Field(str_length={"min_value": 1}, description="gold answer")
    also: str = pa.Field(nullable=True, description=ALSO)


class RejectedAnswers(Table):
    """Wrong answers that came with training rows, sorted by row_id."""

    row_id: str = row_id(unique=True)
    rejected: str = pa.Field(str_length={"min_value": 1}, description="none of the row's right answers")


class Provenance(Table):
    """Where each accepted row came from."""

    row_id: str = row_id(unique=True)
    split: str = pa.Field(isin=["train", "validation", "test"], description="by content hash, or as declared")
    file: str = pa.Field(description="name of the landed file")
    record: str = pa.Field(str_matches=r"^[0-9a-f]{16}$", description=RECORD)
    source_id: str = pa.Field(nullable=True, description="the file's own id, if it has one")
    metadata: str = pa.Field(nullable=True, description="JSON object of all other fields")


class Corrections(Table):
    """What people decided about rows that are in the data set (apt_assets/landing/corrections.py), the last decision of
    each, sorted by row_id."""

    row_id: str = row_id(unique=True)
    decision: str = pa.Field(
        isin=["gold_is_right", "answer_is_right_too", "both_wrong", "new_row"], description="what was decided"
    )
    landed_answer: str = pa.Field(description="gold answer before any decision")
    landed_also: str = pa.Field(nullable=True, description=ALSO)
    by: str = pa.Field(description="who decided")
    at: str = pa.Field(description="when, ISO 8601 in UTC")
    file: str = pa.Field(description="name of the landed file of corrections")


class Quarantine(Table):
    """Rows that were not accepted. Nothing is dropped without a row here."""

    file: str = pa.Field(description="name of the landed file")
    record: str = pa.Field(str_matches=r"^[0-9a-f]{16}$", description=RECORD)
    field: str = pa.Field(nullable=True, description="the field that is wrong; null: the whole row")
    reason: str = pa.Field(description="what is wrong with it")
    raw: str = pa.Field(description="the row as found, at most 500 characters")


class Pool(Table):
    """The rows that similar cases are looked for in, sorted by row_id. Their vectors lie in LanceDB."""

    row_id: str = row_id(unique=True)
    check: str = pa.Field(str_matches=r"^[0-9a-f]{32}$", description="32 hex digits of the prompt and its vector")


class Predictions(Table):
    """The policy's answers, graded."""

    row_id: str = row_id(unique=True)
    prompt: str = pa.Field(description="the question")
    answer: str = pa.Field(description="gold answer")
    also: str = pa.Field(nullable=True, description=ALSO)
    prediction: str = pa.Field(description="the policy's answer")
    grade: pl.Int8 = pa.Field(isin=[1, 2, 3, 4, 5], description=GRADE)
    exact: bool = pa.Field(description="says the same as a right answer, in the assessor's normal form")


class BadCases(Predictions):
    """Predictions graded below the threshold."""

    grade: pl.Int8 = pa.Field(isin=[1, 2, 3, 4], description=GRADE)


class DoubtfulGolds(Table):
    """What was answered wrong, by how doubtful its gold is, most doubtful first (apt_assets/method/doubt.py)."""

    row_id: str = row_id(unique=True)
    kind: str = pa.Field(isin=["bad_case", "similar"], description="a bad case, or a similar case of one")
    prompt: str = pa.Field(description="the question")
    answer: str = pa.Field(description="gold answer")
    prediction: str = pa.Field(description="the policy's answer")
    grade: pl.Int8 = pa.Field(isin=[1, 2, 3, 4], description=GRADE)
    other: str = pa.Field(
        nullable=True, description="of the golds of similar rows the strongest one that is no gold here"
    )
    votes_other: float = pa.Field(
        ge=0, description="of the 10 nearest training rows those with that gold: sum of cosine²"
    )
    votes: float = pa.Field(ge=0, description="those with a gold of this row, likewise")
    log_prob_gold: float = pa.Field(nullable=True, le=0, description=f"policy's, of the gold, {PER_TOKEN}")
    log_prob_prediction: float = pa.Field(nullable=True, le=0, description=f"of what it said, {PER_TOKEN}")
    doubt: float = pa.Field(ge=0, le=1, description="0-1; 0.5: as much speaks for the gold as against it")


class Neighbors(Table):
    """Similar cases, each row once: under the bad case it is most similar to. Or random rows in their places."""

    row_id: str = row_id(unique=True)
    case_id: str = pa.Field(str_matches=r"^[0-9a-f]{16}$", description="row_id of the bad case")
    rank: int = pa.Field(ge=1, description="1 is the nearest of its bad case, or in its place")
    similarity: float = pa.Field(
        nullable=True, ge=-1.001, le=1.001, description="cosine, -1 to 1; null: drawn at random"
    )
    prompt: str = pa.Field(description="the similar question")
    answer: str = pa.Field(description="its gold answer")
    also: str = pa.Field(nullable=True, description=ALSO)


class PreferencePairs(Table):
    """What is trained on, and why. A replay row has rejected == chosen: its DPO gradient is zero."""

    row_id: str = row_id(unique=True)
    case_id: str = pa.Field(
        str_matches=r"^[0-9a-f]{16}$", description="bad case it came by; its own of a replay row that no case led to"
    )
    kind: str = pa.Field(
        isin=["bad_case", "similar", "counterfactual", "replay"],
        description="why the row is here; counterfactual: a similar case answered right, with a wrong answer to reject",
    )
    prompt: str = pa.Field(description="the question")
    chosen: str = pa.Field(description="gold answer")
    rejected: str = pa.Field(description=REJECTED)
    grade: pl.Int8 = pa.Field(
        nullable=True,
        isin=[1, 2, 3, 4, 5],
        description="of `rejected`, null if that came with the row; of a replay row of the answer, null if the policy "
        f"was not asked. {GRADE}",
    )
    weight: float = pa.Field(ge=0, le=1, description=WEIGHT)


class TrainingPairs(Table):
    """What the trainer reads of the preference pairs, in their order: a new grade or case trains nothing anew, nor does
    a new doubt that softens nothing."""

    prompt: str = pa.Field(description="the question")
    chosen: str = pa.Field(description="gold answer")
    rejected: str = pa.Field(description=REJECTED)
    weight: float = pa.Field(ge=0, le=1, description=WEIGHT)


class DomainItems(Predictions):
    """Held-out questions, answered and graded."""

    split: str = pa.Field(isin=["validation", "test"], description="validation decides, test is reported")


class JudgedAnswers(Table):
    """Answers that people graded, and the assessor too."""

    prompt: str = pa.Field(description="the question")
    prediction: str = pa.Field(description="the answer that was graded")
    answer: str = pa.Field(description="gold answer")
    human: pl.Int8 = pa.Field(
        isin=[1, 2, 3, 4, 5], description="people's grade, of several the median, the lower of two"
    )
    judge: pl.Int8 = pa.Field(isin=[1, 2, 3, 4, 5], description=GRADE)
    by: str = pa.Field(description="who graded it")


class RefusedGrades(Table):
    """Human grades that cannot be used. None is dropped without a row here."""

    file: str = pa.Field(description="name of the file in assessor.calibration.folder")
    line: int = pa.Field(ge=0, description="on which it stands; 0: the file as a whole")
    field: str = pa.Field(nullable=True, description="the field that is wrong; null: the whole line")
    reason: str = pa.Field(description="what is wrong with it")
    raw: str = pa.Field(description="the line as found, at most 500 characters")


class GeneralItems(Table):
    """Items of the general benchmark, scored by lm-eval."""

    task: str = pa.Field(description="lm-eval task name")
    item: int = pa.Field(ge=0, description="index of the item in the task")
    correct: bool = pa.Field(description="the gold choice has the highest log-likelihood per character")
    margin: float = pa.Field(description="log-likelihood of the gold minus the best other choice, nats per character")
    gold: float = pa.Field(le=0, description="log-likelihood of the gold choice, nats per character")


class PassageItems(Table):
    """Passages whose every token was scored by lm-eval: what word perplexity is made of."""

    task: str = pa.Field(description="lm-eval task name")
    item: int = pa.Field(ge=0, description="index of the passage in the task")
    nats: float = pa.Field(ge=0, description="minus the log-likelihood of the whole passage, nats")
    # Letters, in scripts without spaces. A description counts as code, and this file is in the key of every stage.
    words: int = pa.Field(ge=1, description="words in it: what white space parts")


class AnchorTexts(Table):
    """Texts that training holds the policy to."""

    origin: str = pa.Field(
        isin=["document", "chat", "file"],
        description="begins as a document does, or where a user speaks; file: one of your own",
    )
    text: str = pa.Field(description="what stands behind that")
    ids: list[int] = pa.Field(description="token ids of all of it")
    given: int = pa.Field(ge=1, description="how many of the ids it begins with; those behind them are trained on")


class ScreenedTexts(Table):
    """Anchor texts that an iteration is held to."""

    place: int = pa.Field(ge=0, unique=True, description="row of AnchorTexts, from 0")


class TextsLeftOut(Table):
    """Anchor texts that hold something of what a policy is measured by: a held-out row, or data of a general task."""

    place: int = pa.Field(ge=0, unique=True, description="row of AnchorTexts, from 0")
    origin: str = pa.Field(description="as in AnchorTexts")
    text: str = pa.Field(description="what the model wrote, or what stood in a file")
    shared: str = pa.Field(description="the words that stand in both, normalised")


class TrainingLog(Table):
    """What TRL logged, one row per optimiser step that it logged."""

    step: int = pa.Field(ge=1, description="optimiser step")
    loss: float = pa.Field(
        description="DPO + NLL, or NLL alone by training.objective, of pairs that count alike, and the weighted "
        "anchor, nats"
    )
    margin: float = pa.Field(nullable=True, description="reward of chosen minus rejected, beta * nats; null: sft")
    reward_accuracy: float = pa.Field(
        nullable=True, ge=0, le=1, description="share of pairs with a positive margin; null: sft"
    )
    grad_norm: float = pa.Field(ge=0, description="before clipping")
    learning_rate: float = pa.Field(ge=0, description="of that step")
    anchor: float = pa.Field(
        nullable=True, description="the anchor's term before its weight, nats per token; null: without an anchor"
    )


# File name (without .parquet) -> its schema.
TABLES: dict[str, type[Table]] = {
    "train": Examples,
    "validation": Examples,
    "test": Examples,
    "rejected_answers": RejectedAnswers,
    "provenance": Provenance,
    "corrections": Corrections,
    "quarantine": Quarantine,
    "pool": Pool,
    "eval_predictions": Predictions,
    "bad_cases": BadCases,
    "neighbors": Neighbors,
    "similar_predictions": Predictions,
    "doubtful": DoubtfulGolds,
    "preference_pairs": PreferencePairs,
    "training_pairs": TrainingPairs,
    "domain_items": DomainItems,
    "judged_answers": JudgedAnswers,
    "refused_grades": RefusedGrades,
    "general_items": GeneralItems,
    "passage_items": PassageItems,
    "anchor_texts": AnchorTexts,
    "screened_texts": ScreenedTexts,
    "texts_left_out": TextsLeftOut,
    "training_log": TrainingLog,
}

from typing import TYPE_CHECKING

from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.rows import grades
from apt_assets.rows.counterfactuals import counterfactuals, work_to_reject
from apt_assets.rows.samples import SAMPLES

if TYPE_CHECKING:
    import polars as pl


def labels(view: View) -> list[str]:
    return grades.competing_labels(view, view.read("domain_dataset", "train")["answer"].to_list())


def given_answers(view: View) -> "pl.DataFrame | None":
    """The rejected answers that came with training rows, if they are to be used."""
    return view.read("domain_dataset", "rejected_answers") if view.settings.pairs.rejected == "given" else None


def trusted(view: View) -> "tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]":
    """(bad cases, similar cases, row_ids of those that `pairs.doubtful` leaves out)."""
    from apt_assets.method.doubt import leave_out

    settings, doubtful = view.settings.pairs, view.read("doubtful_golds", "doubtful")
    most = settings.max_doubt if settings.doubtful == "leave_out" else None
    return leave_out(view.read("bad_cases"), view.read("neighbors"), doubtful, most)


def answered_of(view: View, similar: "pl.DataFrame") -> "pl.DataFrame":
    """The policy's answers to these similar cases."""
    return view.read("similar_predictions").join(similar, on="row_id", how="semi", maintain_order="left")


def work(view: View) -> dict[str, int]:
    _, similar, _ = trusted(view)
    return work_to_reject(view, answered_of(view, similar), labels(view), given_answers(view))


@stage(
    inputs=[
        "iteration",
        "bad_cases",
        "eval_predictions",
        "neighbors",
        "similar_predictions",
        "policy",
        "domain_dataset/train.parquet",
        "domain_dataset/rejected_answers.parquet",
        "doubtful_golds",
    ],
    rows=[*grades.KINDS, SAMPLES],
    settings=[
        "assessor.bad_below",
        "pairs.max_doubt",
        "pairs.doubtful",
        "pairs.replay",
        "pairs.replay_share",
        "pairs.counterfactual",
        "pairs.rejected",
        "mining.seed",
        *grades.SETTINGS,
    ],
    identities=[*grades.IDENTITIES],
    libraries=["polars"],
    outputs=["preference_pairs.parquet", "training_pairs.parquet"],
    lineage={
        "row_id": ["bad_cases.row_id", "neighbors.row_id", "eval_predictions.row_id", "doubtful_golds.doubt"],
        "case_id": ["bad_cases.row_id", "neighbors.case_id"],
        "kind": ["bad_cases.grade", "similar_predictions.grade", "eval_predictions.grade"],
        "prompt": ["bad_cases.prompt", "neighbors.prompt", "eval_predictions.prompt"],
        "chosen": ["bad_cases.answer", "neighbors.answer", "eval_predictions.answer"],
        "rejected": [
            "bad_cases.prediction",
            "similar_predictions.prediction",
            "similar_predictions.answer",
            "eval_predictions.prediction",
            "domain_dataset.answer",
        ],
        "grade": [
            "bad_cases.grade",
            "similar_predictions.grade",
            "similar_predictions.answer",
            "eval_predictions.grade",
        ],
        "weight": ["doubtful_golds.doubt"],
    },
    work=work,
    group="5_training",
    kinds=["torch", "polars"],
)
def preference_pairs(step: Step) -> None:
    """What is trained on: chosen = gold, rejected = the policy's own answer, or the one that came with the row
    (`pairs.rejected`), for the bad cases and for the similar cases. A similar case answered right may get a wrong
    answer to reject. Where a gold is too doubtful (`pairs.max_doubt`), its row is left out, a bad case with all its
    similar cases, or its pair counts less in training. Replay rows, trained by their NLL only, are
    questions answered right, or any other training rows: see `pairs.replay`.
    """
    from apt_assets.method.doubt import soften
    from apt_assets.method.pairing import build_pairs, with_replay_from_pool

    (cases, similar, out), share = trusted(step), step.settings.pairs.replay_share
    mined = step.read("eval_predictions").join(out, on="row_id", how="anti", maintain_order="left")
    competing, from_pool, given = labels(step), step.settings.pairs.replay == "pool", given_answers(step)
    answered = answered_of(step, similar)
    pairs = build_pairs(
        cases,
        mined,
        similar,
        answered,
        bad_below=step.settings.assessor.bad_below,
        replay_share=0.0 if from_pool else share,
        counterfactuals=counterfactuals(step, answered, competing, given),
        given=given,
    )
    if from_pool:
        train, seed = step.read("domain_dataset", "train"), step.settings.mining.seed
        train = train.join(out, on="row_id", how="anti", maintain_order="left")
        pairs = with_replay_from_pool(pairs, train, [answered, mined], share, step.iteration, seed)
    most = step.settings.pairs.max_doubt
    if step.settings.pairs.doubtful == "soften":
        pairs = soften(pairs, step.read("doubtful_golds", "doubtful"), most)
    softened = pairs.filter(pairs["weight"] < 1).height
    step.write(pairs)
    step.write(pairs.select("prompt", "chosen", "rejected", "weight"), "training_pairs")
    step.facts.update(rows=pairs.height, bad_cases=cases.height, left_out=out.height, softened=softened)
    step.facts["kinds"] = dict(pairs["kind"].value_counts().sort("kind").iter_rows())
    too_doubtful = f"since their golds are more doubtful than pairs.max_doubt = {most}"
    if out.height:
        doubtful = step.read("bad_cases").height - cases.height
        step.tell(
            f"{doubtful} of {doubtful + cases.height} bad cases and {out.height - doubtful} similar cases are left "
            f"out, {too_doubtful}, or those of the bad cases that led to them"
        )
    if softened:
        step.tell(f"{softened} of {pairs.height} pairs count less in training, {too_doubtful}")

from apt_assets.engine.stage import ANSWERING, GRADING, GRADING_LIBRARIES, stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.rows.answers import answer_and_grade, work_to_answer
from apt_assets.rows.counterfactuals import counterfactuals, work_to_reject
from apt_assets.rows.grades import competing_labels


def labels(view: View) -> list[str]:
    return competing_labels(view, view.read("domain_dataset", "train")["answer"].to_list())


def work(view: View) -> dict[str, int]:
    similar, competing = view.read("neighbors"), labels(view)
    amounts = work_to_answer(view, view.previous_adapter(), similar, competing)
    more = work_to_reject(view, similar, competing)
    return {kind: amount + more[kind] for kind, amount in amounts.items()}


@stage(
    inputs=["iteration", "bad_cases", "eval_predictions", "neighbors", "policy", "domain_dataset/train.parquet"],
    settings=[
        "assessor.bad_below",
        "pairs.replay",
        "pairs.replay_share",
        "pairs.counterfactual",
        "pairs.temperature",
        "mining.seed",
        *ANSWERING,
        *GRADING,
    ],
    identities=["grader"],
    libraries=["torch", "transformers", "peft", "polars", *GRADING_LIBRARIES],
    work=work,
    group="training",
    kinds=["torch", "polars"],
)
def preference_pairs(step: Step) -> None:
    """What is trained on: chosen = gold, rejected = the policy's own answer, for the bad cases and
    for the similar cases, which the policy answers here. A similar case answered right may get a wrong
    answer to reject. Replay rows, trained by their NLL only, are questions answered right, or any other
    training rows: see `pairs.replay`.
    """
    from apt_assets.method.pairing import build_pairs, with_replay_from_pool

    mined, similar, share = step.read("eval_predictions"), step.read("neighbors"), step.settings.pairs.replay_share
    competing, from_pool = labels(step), step.settings.pairs.replay == "pool"
    answered = answer_and_grade(step, step.previous_adapter(), similar, competing, "answering similar cases")
    pairs = build_pairs(
        step.read("bad_cases"),
        mined,
        similar,
        answered,
        bad_below=step.settings.assessor.bad_below,
        replay_share=0.0 if from_pool else share,
        counterfactuals=counterfactuals(step, answered, competing),
    )
    if from_pool:
        train, seed = step.read("domain_dataset", "train"), step.settings.mining.seed
        pairs = with_replay_from_pool(pairs, train, [answered, mined], share, step.iteration, seed)
    step.write(pairs)
    step.write(pairs.select("prompt", "chosen", "rejected"), "training_pairs")
    step.facts["rows"] = pairs.height
    step.facts["kinds"] = dict(pairs["kind"].value_counts().sort("kind").iter_rows())

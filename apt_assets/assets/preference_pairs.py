from apt_assets.answering import answer_and_grade, competing_labels, open_policy
from apt_assets.engine.execute import Step
from apt_assets.engine.stages import ANSWERING, GRADING, stage


@stage(
    inputs=["bad_cases", "eval_predictions", "neighbors", "policy", "domain_dataset/train.parquet"],
    settings=["assessor.bad_below", "pairs.replay_share", *ANSWERING, *GRADING],
    libraries=["torch", "transformers", "peft"],
    version="1",
    group="training",
    kinds=["torch", "polars"],
)
def preference_pairs(step: Step) -> None:
    """What is trained on: chosen = gold, rejected = the policy's own answer, for the bad cases and
    for the similar cases, which the policy answers here. Some questions answered right are kept as
    replay rows, trained by their NLL only.
    """
    from apt_assets.method.pairing import build_pairs

    similar = step.read("neighbors")
    policy = open_policy(step, step.previous_adapter())
    labels = competing_labels(step, step.read("domain_dataset", "train")["answer"].to_list())
    pairs = build_pairs(
        step.read("bad_cases"),
        step.read("eval_predictions"),
        similar,
        answer_and_grade(step, policy, similar, labels, "answering similar cases"),
        bad_below=step.experiment.assessor.bad_below,
        replay_share=step.experiment.pairs.replay_share,
    )
    step.write(pairs)
    step.facts["rows"] = pairs.height
    step.facts["kinds"] = dict(pairs["kind"].value_counts().sort("kind").iter_rows())

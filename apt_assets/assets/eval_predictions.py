from apt_assets.answering import answer_and_grade, competing_labels, open_policy
from apt_assets.engine.execute import Step
from apt_assets.engine.stages import ANSWERING, GRADING, stage


@stage(
    inputs=["iteration", "policy", "domain_dataset/train.parquet"],
    settings=["mining.questions", "mining.seed", *ANSWERING, *GRADING],
    libraries=["torch", "transformers", "peft"],
    version="1",
    group="mining",
    kinds=["torch", "polars"],
)
def eval_predictions(step: Step) -> None:
    """The policy's answers to this iteration's draw of training questions, graded 1-5 against the
    gold by the rubric in resources/assessor.py.
    """
    from apt_assets.method.mining import draw_questions

    mining = step.experiment.mining
    train = step.read("domain_dataset", "train")
    questions = draw_questions(train, step.iteration, mining.questions, mining.seed)
    policy = open_policy(step, step.previous_adapter())
    labels = competing_labels(step, train["answer"].to_list())
    predictions = answer_and_grade(step, policy, questions, labels, "mining")
    step.write(predictions)
    counts = predictions["grade"].value_counts().sort("grade")
    step.facts["rows"] = predictions.height
    step.facts["grades"] = {str(grade): count for grade, count in counts.iter_rows()}

import json
from typing import TYPE_CHECKING, Any

from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.rows import grades

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.landing.records import Reject


def graded_by_people(view: View) -> "tuple[pl.DataFrame, list[Reject]]":
    """(answers as rows to grade, with `human` and `by`; lines that cannot be used)."""
    from apt_assets.landing.human_grades import read_human_grades
    from apt_assets.method.judge import one_grade_each
    from resources.assessors.golds import ungradable

    checks = ungradable(view.settings.assessor.gold_checks)
    found, rejects = read_human_grades(view.outside("human_grades"), checks)
    names = {"answer": "prediction", "gold": "answer", "grade": "human"}
    return one_grade_each(found).rename(names), rejects


def labels_of(view: View) -> list[str]:
    found = json.loads(view.artifact("heldout_rows", "labels.json").read_text())["labels"]
    return grades.labels_as_set(view, lambda: found)


def work(view: View) -> dict[str, int]:
    if view.settings.assessor.calibration.folder is None:
        return {}
    keys = grades.grade_keys(graded_by_people(view)[0])
    return {"grades": sum(table.missing(keys) for table in grades.grade_tables(view, labels_of(view)).values())}


@stage(
    inputs=["heldout_rows/labels.json"],
    rows=grades.KINDS,
    settings=["assessor.calibration.folder", "assessor.gold_checks", *grades.SETTINGS],
    identities=[*grades.IDENTITIES, "human_grades"],
    libraries=["polars", "numpy", "scipy"],
    outputs=["confusion.json", "calibration.json", "judged_answers.parquet", "refused_grades.parquet"],
    main_table="judged_answers",
    work=work,
    memory=["grades"],
    group="6_evaluation",
    kinds=["polars"],
    partitioned=False,
)
def judge_calibration(step: Step) -> None:
    """The judge judged: what the assessor says of answers that people graded (assessor.calibration), how far the two
    agree, and what the gate corrects its domain scores by. Where no folder is named there is nothing in it. Lines that
    cannot be used are in refused_grades.parquet with file, line, field and reason.
    """
    calibrated = step.settings.assessor.calibration.folder is not None
    found = judged(step) if calibrated else {}
    # All that the gate reads: another grade that leaves the counts as they are decides nothing anew.
    confusion = {"calibrated": calibrated, **found.pop("confusion", {})}
    (step.out / "confusion.json").write_text(json.dumps(confusion))
    (step.out / "calibration.json").write_text(json.dumps(found, indent=1))
    step.facts.update(confusion, **found)


def judged(step: Step) -> dict[str, Any]:
    """`method.judge.calibration` of what people graded, and how many lines were refused; tables are written."""
    import polars as pl

    from apt_assets.method.judge import calibration
    from schemas.tables import JudgedAnswers, RefusedGrades

    answers, rejects = graded_by_people(step)
    graded = grades.grade_rows(step, labels_of(step), answers, "human grades")
    answers = answers.with_columns(judge=pl.Series([grade for grade, _ in graded], dtype=pl.Int8))
    columns = JudgedAnswers.empty().schema
    step.write(answers.select(list(columns)).cast(columns), "judged_answers")  # type: ignore[arg-type]
    refused = [vars(reject) for reject in rejects]
    step.write(pl.DataFrame(refused, schema=RefusedGrades.empty().schema), "refused_grades")
    if refused:
        step.tell(f"{len(refused)} human grades cannot be used: `apt-assets show refused_grades base` lists them")
    return {**calibration(answers["human"], answers["judge"]), "refused": len(refused)}

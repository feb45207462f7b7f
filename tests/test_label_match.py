import pytest

from resources.assessors.labels import exact, grade, labels_of

LABELS = labels_of(["Eye", "Ear", "Skin", "Injury"])


@pytest.mark.parametrize(
    ("said", "gold", "expected"),
    [
        ("Eye", "Eye", 5),
        (" Eye\n", "Eye", 5),
        ("eye.", "Eye", 4),
        ("The chapter is Eye.", "Eye", 4),
        ("Eye or Ear", "Eye", 3),
        ("Ear", "Eye", 2),
        ("Eyes", "Eye", 1),
        ("", "Eye", 1),
        ("I do not know", "Eye", 1),
    ],
)
def test_rubric_on_closed_labels(said, gold, expected):
    assert grade(said, gold, LABELS) == expected


@pytest.mark.parametrize(
    ("said", "gold", "expected"),
    [
        ("the blue whale", "Blue whale", 4),
        ("a whale", "blue whale", 2),
        ("15 mg", "1.5 mg", 2),
        ("-5", "5", 1),
        ("1.5 mg.", "1.5 mg", 4),
    ],
)
def test_rubric_on_free_answers(said, gold, expected):
    assert grade(said, gold) == expected


def test_label_inside_the_gold_does_not_compete():
    assert grade("eye injury", "Eye injury", labels_of(["Eye injury", "Eye"])) == 4


def test_choice_letter_a_is_an_answer_not_an_article():
    labels = labels_of(["A", "B", "C"])
    assert [grade(said, "A", labels) for said in ("A", "Answer: A", "A or B", "B", "")] == [5, 4, 3, 2, 1]
    assert not exact("", "A")
    assert not exact("+", "-")


def test_exact_is_after_normalisation():
    assert exact("  EYE!", "Eye")
    assert not exact("Eye or Ear", "Eye")


def test_free_form_task_has_no_labels():
    assert labels_of(str(n) for n in range(200)) == []

import pytest

from resources.assessors.labels import exact, grade, labels_of, normalise_answer

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


# -- symbols -------------------------------------------------------------------------------------

# Labels that differ in a symbol alone.
APART = [
    ["C", "C++", "C#", "F", "F#", "C♭"],
    [".NET", "NET"],
    ["A", "A+", "A-"],
    ["B", "B+", "B-", "AB", "AB+", "AB-"],
    ["A Rh+", "A Rh-"],
    ["HER2+", "HER2-", "HER2"],
    ["x<5", "x>5", "x<=5", "x>=5", "x=5", "x!=5"],
    ["5", "+5", "-5", "±5", "~5", "<5", ">5"],
    ["10", "10%", "10‰"],
    ["5", "$5", "€5", "£5"],
    ["a/b", "a b", "a&b", "a|b", "a=b", "a+b", "a*b", "a^b", "a→b"],
    ["user", "@user", "#user"],
    ["Na", "Na+", "Na-"],
    ["Ca", "Ca+", "Ca²⁺", "Ca2-"],
    ["2-butanol", "2′-butanol", "2″-butanol"],
    ["(+)-limonene", "(-)-limonene"],
    ["👍", "👎", "👍🏽", "👍👍"],
    ["★", "★★", "★★★"],
    ["🇩🇪", "🇫🇷"],
    ["==", "!=", "<", "<=", ">", ">=", "&", "&&", "|", "||", "+", "-", "*", "**", "/", "%"],
    ["*.py", ".py", "*.pyc"],
    ["ab*", "ab+", "ab"],
    [r"\d+", "d+", r"\d*"],
    ["x", "-x", "!x"],
    ["J45", "J45.1", "J45.10"],
    ["1:100", "1:10", "1", "100"],
    ["1.5", "15", "1 5", "1/5", "1-5"],
    ["5°", "5"],
    ["List<String>", "List<Integer>", "List"],
    ["n/a", "a", "n"],
    ["red", "not red"],
]


@pytest.mark.parametrize("these", APART, ids=lambda these: these[0])
def test_labels_that_differ_in_a_symbol_stay_apart(these):
    labels = labels_of(these)
    assert len(labels) == len(these)
    for gold in these:
        for said in these:
            assert exact(said, gold) == (said == gold), (said, gold)
            assert (grade(said, gold, labels) >= 4) == (said == gold), (said, gold)


@pytest.mark.parametrize(
    "label", ["C++", "C#", "A-", "A+", ".NET", "x<5", "$5", "10%", "Na+", "👍", "@user", "-5", "red"]
)
@pytest.mark.parametrize(
    "form",
    ["{}.", "**{}**", "`{}`", "{}!", "({})", "{}, of course", "“{}”", "'{}'", "The answer is {}.", "{} – sure", "- {}",
     "Answer: {}", "*{}*?", "[{}]", "{}; yes", "=> {}", "It is {} — I think", "<answer>{}</answer>", "# {}"],
)  # fmt: skip
def test_punctuation_and_markdown_around_a_label_leave_it_named(label, form):
    labels = labels_of(["C", "C++", "C#", "A", "A-", "A+", "NET", ".NET", "x<5", "x>5", "red", "👍", "👎"])
    assert grade(form.format(label), label, labels) == 4


@pytest.mark.parametrize("said", ["C++ or C#", "C/C++", "C++/C#", "C and C++", "C++, C"])
def test_answer_with_two_labels_of_symbols_is_hedged(said):
    gold = "C" if said in ("C and C++", "C/C++") else "C++"
    assert grade(said, gold, labels_of(["C", "C++", "C#"])) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A−", "A-"), ("10 %", "10%"), ("5 €", "€5"), ("x < 5", "x<5"), ("x ≤ 5", "x <= 5"), ("C♯", "C#"),
        ("20 °C", "20°C"), ("red.", "red"), ("well-known", "well known"), ("a_b", "a b"), ("٥", "5"), ("$x+1$", "x+1"),
        ("C\\+\\+", "C++"), ("a != b", "a ≠ b"), ("(red)", '"Red"'),
    ],
)  # fmt: skip
def test_spellings_of_one_label_are_one(one, other):
    assert normalise_answer(one) == normalise_answer(other)
    assert grade(one, other) == 4


def test_closed_list_whose_labels_cannot_be_told_apart_is_refused_and_both_are_named(tmp_path):
    from apt_assets.settings.experiment import UsageError
    from apt_assets.settings.reader import load_experiment

    path = tmp_path / "mine.yaml"
    path.write_text('name: x\nassessor: {labels: [f, g, "f\'"]}')
    with pytest.raises(UsageError, match=r"(?s)assessor\.labels: .*'f' and \"f'\" are one label.*keep one"):
        load_experiment(path)
    path.write_text("name: x\nassessor: {labels: [C, C++, 'C#', 'A-', 'A+', A]}")
    assert len(load_experiment(path).assessor.labels) == 6


def test_golds_of_one_label_in_two_spellings_are_one_label():
    assert labels_of(["red.", "Red!", "(red)"]) == ["red"]

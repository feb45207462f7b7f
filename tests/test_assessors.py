"""What each assessor gives, by rule and on recorded answers of the embedded policy."""

import json
from pathlib import Path

import pytest

from resources.assessors import Row, Ungradable
from resources.assessors.exact import ExactMatch
from resources.assessors.labels import LabelMatch, labels_of
from resources.assessors.numeric import Numeric, no_one_number, quantities
from resources.assessors.overlap import TextOverlap
from resources.assessors.set_f1 import SetF1

DATA = Path(__file__).with_name("data")


def grade(assessor, prediction, gold, question="How much?"):
    return assessor.grade([Row(question, prediction, gold)])[0].grade


# -- numbers -------------------------------------------------------------------------------------


def numeric(relative=0.01, absolute=0.0, units="convert"):
    return Numeric(relative, absolute, units)


@pytest.mark.parametrize(
    ("said", "gold", "expected"),
    [
        ("15 mg", "15 mg", 5),
        ("The dose is 15mg.", "15 mg", 5),
        ("0.015 g", "15 mg", 5),
        ("1,500 mg", "1.5 g", 5),
        ("1,5 g", "1500 mg", 5),
        ("1.5e3 mg", "1.5 g", 5),
        ("36 km/h", "10 m/s", 5),
        ("two hours: 120 minutes", "2 hours", 5),
        ("100 degrees Celsius", "100 °C", 5),
        ("10 metres per second", "10 m/s", 5),
        ("1.5 g (1500 mg)", "1500 mg", 5),
        ("\N{MINUS SIGN}5 °C", "-5 °C", 5),
        ("250 mcg", "250 µg", 5),
        ("12", "12.0", 5),
        ("12 apples", "12", 5),
        ("15.1 mg", "15 mg", 4),
        ("15", "15 mg", 3),
        ("15 is the dose", "15 mg", 3),
        ("15 mg or 20 mg", "15 mg", 3),
        ("15 g", "15 mg", 2),
        ("15 mL", "15 mg", 2),
        ("15.2 mg", "15 mg", 2),
        ("150 mg", "15 mg", 2),
        ("5", "-5", 2),
        ("1e999", "5", 2),
        ("a lot", "15 mg", 1),
        ("", "15 mg", 1),
    ],
)
def test_number_by_value_unit_and_tolerance(said, gold, expected):
    assert grade(numeric(), said, gold) == expected


def test_number_that_the_question_gives_may_be_repeated():
    assert grade(numeric(), "7 times 6 is 42", "42", "What is 7 times 6?") == 5
    assert grade(numeric(), "41 or 42", "42", "What is 7 times 6?") == 3
    assert grade(numeric(), "7", "42", "What is 7 times 6?") == 2
    assert grade(numeric(), "3 km are 3000 m", "3000 m", "How many metres are 3 kilometres?") == 5
    assert grade(numeric(), "3 km", "3000 m", "How many metres are 3 kilometres?") == 2
    assert grade(numeric(), "5 kg", "5 kg", "Which is more, 3 kg or 5 kg?") == 5


def test_to_repeat_a_question_that_offers_the_number_decides_nothing():
    for said in ("9.11 or 9.9", "Which is larger, 9.11 or 9.9?", "It is 9.9, not 9.11"):
        assert grade(numeric(), said, "9.9", "Which is larger, 9.11 or 9.9?") == 3


@pytest.mark.parametrize(
    ("question", "said", "gold"),
    [
        ("A car drives 60 km in 1 hour. How far in 1 hour?", "60 km in 1 hour", "60 km"),
        ("You have 3 apples and 5 pears and get 2 apples. How many apples?", "3 + 2 = 5", "5"),
        ("In 2020 it was $5, and in 2021 it rose to $10. What was it in 2021?", "In 2021 it was $10", "$10"),
        ("What is 100% of 50?", "100% of 50 is 50", "50"),
        ("Is 2 h more or less than 90 min, and how long is it?", "2 h, and 90 min are less", "2 h"),
    ],
)
def test_gold_that_stands_in_the_question_may_be_said_with_the_numbers_beside_it(question, said, gold):
    expected = 3 if "or less" in question else 5
    assert grade(numeric(), said, gold, question) == expected


def test_volumes_are_one_measure_and_a_blood_pressure_is_no_fraction():
    assert grade(numeric(), "5 cm3", "5 mL") == grade(numeric(), "1 m3", "1000 L") == 5
    assert grade(numeric(), "1 g/cm3", "1000 g/L") == 5
    for said, gold in (
        ("10 m·s⁻¹", "10 m/s"), ("9.81 m s^-2", "9.81 m/s²"), ("5 mmol·L⁻¹", "5 mmol/L"), ("3 kg·m⁻³", "3 g/L"),
        ("8.314 J/(mol·K)", "8.314 J mol⁻¹ K⁻¹"), ("14 g/dl", "14 g/dL"), ("33 cl", "330 ml"), ("5 µl", "5 μL"),
    ):  # fmt: skip
        assert grade(numeric(), said, gold) == grade(numeric(), gold, said) == 5, said
    assert grade(numeric(), "10 m·s⁻²", "10 m/s") == grade(numeric(), "100 W", "100 W/(m²·K)") == 2
    assert grade(numeric(), "100 W m⁻² K⁻¹", "100 W/(m²·K)") == grade(numeric(), "8 J/K/mol", "8 J mol⁻¹ K⁻¹") == 5
    assert [value for value, *_ in quantities("3x⁻¹ and 10⁻³ mol")] == [3, -1, 0.001]
    # Read in part, a wrong unit would be the right one.
    for gold in ("1600 cm⁻¹", "10 kg m s⁻²", "6.7e-11 N m² kg⁻²", "5 m s⁻¹ K⁻¹ mol⁻¹", "2 m^-1.5"):
        assert no_one_number(gold), gold
    assert grade(numeric(), "5 cm2", "5 mL") == 2
    with pytest.raises(Ungradable, match="none that can be read"):
        grade(numeric(), "150/100 mmHg", "120/80 mmHg")
    assert grade(numeric(), "1 1/2 mmHg", "1.5 mmHg") == 5


def test_units_may_be_demanded_as_written_or_ignored():
    assert [grade(numeric(units=units), "1.5 g", "1500 mg") for units in ("convert", "same", "ignore")] == [5, 2, 2]
    assert [grade(numeric(units=units), "15 g", "15 mg") for units in ("convert", "same", "ignore")] == [2, 2, 5]


def test_absolute_tolerance_is_in_the_gold_s_unit():
    assert grade(numeric(0, 500), "1 g", "1400 mg") == 4
    assert grade(numeric(0, 300), "1 g", "1400 mg") == 2
    assert grade(numeric(0, 0.5), "0.4", "0") == 4


@pytest.mark.parametrize(
    ("said", "gold", "expected"),
    [
        ("98.6 °F", "37 °C", 5),
        ("310.15 K", "37 °C", 5),
        ("37 °C", "98.6 °F", 5),
        ("32 °F", "0 °C", 5),
        ("273.15 kelvin", "0 °C", 5),
        ("0 °C", "273.15 K", 5),
        ("-459.67 °F", "0 K", 5),
        ("-40 °F", "-40 °C", 5),
        ("310150 mK", "37 °C", 5),
        ("37 °C (98.6 °F)", "37 °C", 5),
        ("99 °F", "37 °C", 4),
        ("37", "37 °C", 3),
        ("37 °C or 99 °F", "37 °C", 3),
        ("100 °F", "37 °C", 2),
        ("37 °F", "37 °C", 2),
        ("37 K", "37 °C", 2),
        ("310.15 °C", "37 °C", 2),
        ("5 m", "5 K", 2),
        ("a fever", "37 °C", 1),
    ],
)
def test_temperature_is_a_point_on_its_scale(said, gold, expected):
    assert grade(numeric(), said, gold) == expected


@pytest.mark.parametrize(
    "said",
    [
        "98.6 degrees Fahrenheit", "98.6 Degrees F.", "98.6 deg F", "98.6degF", "98.6 deg. f", "98.6℉",
        "98.6 °Fahrenheit", "98.6° F", "98.6 fahrenheit", "98,6 Grad Fahrenheit", "37 degrees Celsius", "37 deg C",
        "37℃", "37 ° c", "37 degrees centigrade", "37\u202f°C", "37 ºC", "37 ˚C", "37 °\N{CYRILLIC CAPITAL LETTER ES}",
        "37 Grad Celsius", "37 degrés Celsius", "37 grados celsius", "37 gradi Celsius", "37 graus Celsius",
        "37 graden Celsius", "37 Celsiusgrader", "37℃です", "37°C左右", "\uff13\uff17\u2103", "310.15 kelvins",
        "310.15 degrees Kelvin", "310.15 °K", "310.15 \N{KELVIN SIGN}",
    ],
)  # fmt: skip
def test_degrees_are_read_in_many_spellings(said):
    assert grade(numeric(), said, "37 °C") == 5
    assert grade(numeric(), "37 °C", said) == 5


@pytest.mark.parametrize("said", ["37 degrees for C", "37° clockwise", "37 gradual", "37 decreases", "37 degrees off"])
def test_word_that_begins_like_a_scale_is_none(said):
    assert grade(numeric(), said, "37 °C") == 3


@pytest.mark.parametrize(
    ("said", "gold", "expected"),
    [
        ("9 °F/min", "5 °C/min", 5),
        ("9 degrees Fahrenheit per minute", "5 °C/min", 5),
        ("5 K/min", "5 °C/min", 5),
        ("300 °C per hour", "5 K/min", 5),
        ("4.2 J per °C", "4.2 J/K", 5),
        ("5.04 °C/min", "5 K/min", 4),
        ("5 °F/min", "5 °C/min", 2),
        ("278.15 K/min", "5 °C/min", 2),
        ("5 °C", "5 °C/min", 2),
    ],
)
def test_rate_of_a_temperature_counts_by_the_size_of_its_degree(said, gold, expected):
    assert grade(numeric(), said, gold) == expected


def test_tolerance_of_a_temperature_is_in_the_gold_s_unit():
    assert [grade(numeric(0, 1), said, "0 °C") for said in ("33.8 °F", "273.9 K", "34 °F")] == [4, 4, 2]
    assert [grade(numeric(0, 1), said, "32 °F") for said in ("0.5 °C", "0.6 °C", "273.8 K")] == [4, 2, 2]
    assert [grade(numeric(0.01, 0), said, "300 K") for said in ("29.8 °C", "29.9 °C")] == [4, 2]
    assert [grade(numeric(0.01, 0), said, "27 °C") for said in ("300.4 K", "300.5 K")] == [4, 2]


def test_temperature_that_the_question_gives_may_be_repeated():
    question = "What are 98.6 °F in Celsius?"
    assert grade(numeric(), "98.6 °F are 37 °C", "37 °C", question) == 5
    assert grade(numeric(), "98.6 degrees Fahrenheit", "37 °C", question) == 2
    assert grade(numeric(), "5 °C", "5 K", "Which is colder, 5 K or 5 °C?") == 2


def test_degrees_may_be_demanded_as_written_or_ignored():
    assert [grade(numeric(units=units), "98.6 °F", "37 °C") for units in ("convert", "same", "ignore")] == [5, 2, 2]
    assert [grade(numeric(units=units), "37 °F", "37 °C") for units in ("convert", "same", "ignore")] == [2, 2, 5]
    assert grade(numeric(units="same"), "37 degrees Celsius", "37 ℃") == 5


def test_small_k_is_a_large_one_where_thousands_are_meant():
    assert grade(numeric(), "15k", "15K") == grade(numeric(), "15K", "15k") == 5


# A gold, what says the same, and what says something else though half of it is the same.
WHOLE_NUMBERS = [
    ("1.234,56 €", ["1234.56 EUR", "1,234.56 €", "€1'234.56", "1 234,56 euros"], ["1.234 €", "1.234,56 $"]),
    ("12.345,67", ["12345.67", "12\u202f345,67", "12'345.67"], ["12.345", "12,345", "345,67"]),
    ("1,00,000", ["100000", "1 lakh", "100k", "1e5", "10^5"], ["1", "100", "1,00"]),
    ("50", ["50.0", "50,0", "٥٠", "५०", "\uff15\uff10"], ["50k", "50K", "5M", "50 lakh", "5e50", "50:1", "5.0.1"]),
    ("3 billion dollars", ["$3B", "$3 bn", "USD 3,000,000,000", "3000 million dollars"], ["$3", "3 million dollars"]),
    ("50000円", ["5万円", "¥50,000", "50000 yen"], ["5円", "50000元"]),
    ("1/2 tablet", ["0.5 tablet", "½ tablet", "0,5 tablet"], ["1 tablet", "2 tablets", "1/2/2024", "1 1/2 tablets"]),
    ("1 1/2", ["1.5", "1½", "3/2"], ["1", "1/2", "11/2"]),
    ("5×10^3", ["5000", "5e3", "5·10³", "5 x 10^3", "5 \\times 10^{3}", "5,000"], ["5", "10", "5×10^2", "5^3"]),
    ("-5 °C", ["\N{MINUS SIGN}5 °C", "–5 °C", "minus 5 °C"], ["5 °C", "(5 °C)"]),
    ("-$1,234", ["$-1234", "($1,234)", "-1234 dollars", "\N{MINUS SIGN}$1,234"], ["$1,234", "(€1,234)"]),
    ("5 %", ["5 percent", "5 per cent", "50 ‰", "50 per mille"], ["5 ‰", "0.05 %"]),
    ("50 mg/kg/day", ["50 mg per kg per day", "0.05 g/kg/day"], ["50 mg/kg", "50 mg/day", "50 mg"]),
    ("120 mm Hg", ["120 mmHg", "120mmHg"], ["120 mm", "120 Pa"]),
    ("7 m²", ["7 m2", "70000 cm²", "7 m^2"], ["7 m", "7 m³", "7 cm²"]),
    ("5 μg", ["5 µg", "5 mcg", "0.005 mg"], ["5 mg", "5 g"]),
    ("<5 mg", ["< 5 mg", "<5mg"], ["5 mg", ">5 mg", "≤5 mg"]),
    ("300 K", ["300K", "26.85 °C"], ["300k", "300"]),
    ("0,500", ["0.5", ".5"], ["500"]),
    ("2 कप", ["2 कप"], ["2 मिनट 3"]),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "same", "others"), WHOLE_NUMBERS, ids=[one[0] for one in WHOLE_NUMBERS])
def test_number_is_read_whole_however_it_is_written(gold, same, others):
    strict = numeric(relative=0)
    assert {said: grade(strict, said, gold) for said in [gold, *same]} == dict.fromkeys([gold, *same], 5)
    found = {said: grade(strict, said, gold) for said in others}
    assert max(found.values()) < 4, found


@pytest.mark.parametrize(
    "gold",
    ["5 to 10 mg", "5-10 mg", "5–10", "5 ± 0.2", "none", "2024-01-02", "01.02.2024", "1/2/2024", "10:30", "1:100",
     "1.2.3", "192.168.1.1", "1,2,3", "1.23,456", "555-1234", "2^10", "1/0", "1'23", "1e400", "10^400", ""],
)  # fmt: skip
def test_gold_that_is_no_single_number_is_refused_with_the_reason(gold):
    reason = no_one_number(gold)
    assert reason is not None
    assert "one number" in reason
    with pytest.raises(Ungradable, match="must hold one number"):
        grade(numeric(), "5", gold)


@pytest.mark.parametrize(
    "said", ["9" * 6000, "1e99999", "1/" + "9" * 6000, "10^" + "9" * 5000, "9" * 400 + ".5", "1e-99999"]
)
def test_number_beyond_all_bounds_is_another_value_and_no_crash(said):
    assert grade(numeric(), said, "5") == 2


def test_lone_separator_is_read_as_in_english_whatever_the_language():
    for written, value in (("1.500", 1.5), ("1,500", 1500), ("1,50", 1.5), ("0,500", 0.5), ("1.500.000", 1.5e6)):
        assert [one.value for one in quantities(written)] == [value]


def test_gold_without_one_number_is_an_error_that_names_the_row():
    for gold in ("a lot", "2 or 3"):
        with pytest.raises(Ungradable, match=f"{gold}.*How much"):
            grade(numeric(), "5", gold)


# -- lists, text, exact --------------------------------------------------------------------------

SETS = SetF1(r"[,;\n]", [0.25, 0.5, 0.85, 1.0])


@pytest.mark.parametrize(
    ("said", "gold", "expected"),
    [
        ("red, green", "green, red", 5),
        ("Red; GREEN;\nred", "green, red", 5),
        ("They are red, and green", "green, red", 5),
        ("both red and green", "green, red", 5),
        ("salt and pepper", "salt and pepper", 5),
        ("red and green", "red", 3),
        ("red/green", "red", 3),
        ("red, green und blau", "green, red", 3),
        ("Here you go and good luck: red, green", "green, red", 5),
        ("I looked and found red and green", "green, red", 5),
        ("red and that's it, green", "green, red", 5),
        ("Fever and cough and that is all", "fever, cough", 5),
        ("Trinidad and Tobago, Malta", "Malta, Trinidad and Tobago", 5),
        ("The colours are:\n- red\n- green", "green, red", 5),
        ("red, green, blue, white", "blue, green, red", 4),
        ("red, green, blue", "green, red", 3),
        ("light red, green", "dark red, green", 3),
        ("red", "green, red", 3),
        ("red, a, b, c", "green, red", 2),
        ("a", "green, red", 1),
        ("", "green, red", 1),
    ],
)
def test_list_by_f1_of_its_items(said, gold, expected):
    assert grade(SETS, said, gold) == expected


def test_gold_without_items_is_an_error_that_names_the_row():
    with pytest.raises(Ungradable, match=r"' , '.*How much"):
        grade(SETS, "red", " , ")


@pytest.mark.parametrize("metric", ["rouge_l", "chrf"])
def test_overlap_falls_as_an_answer_moves_away_from_the_gold(metric):
    overlap = TextOverlap(metric, [0.2, 0.4, 0.6, 0.8])
    gold = "The heart pumps blood through the body."
    said = [gold, "The heart pumps blood through your whole body.", "A heart moves blood.", "Paris"]
    grades = [grade(overlap, one, gold) for one in said]
    assert grades == sorted(grades, reverse=True)
    assert (grades[0], grades[-1]) == (5, 1)
    assert grades[1] > grades[2]


@pytest.mark.parametrize("metric", ["rouge_l", "chrf"])
@pytest.mark.parametrize("text", ["Сердце перекачивает кровь", "心臓は血液を送り出す"])
def test_overlap_reads_scripts_other_than_latin(metric, text):
    assert grade(TextOverlap(metric, [0.2, 0.4, 0.6, 0.8]), text, text) == 5


@pytest.mark.parametrize("metric", ["rouge_l", "chrf"])
@pytest.mark.parametrize(("said", "gold"), [("yes", "Yes."), ("The Heart.", "THE HEART"), ("Straße", "STRASSE")])
def test_answer_that_is_equal_but_for_case_and_punctuation_is_right_by_any_overlap(metric, said, gold):
    overlap = TextOverlap(metric, [0.2, 0.4, 0.6, 0.8])
    assert overlap.grade([Row("What?", said, gold)]) == [(5, True)]


@pytest.mark.parametrize("separator", [r"\s*(,|;|\band\b)\s*", "(,)|(;)|( and )"])
def test_groups_in_a_separator_are_no_items(separator):
    assert grade(SetF1(separator, [0.25, 0.5, 0.85, 1.0]), "red and blue", "red, blue") == 5


@pytest.mark.parametrize(
    ("said", "gold"),
    [
        ("yellow fever", "fever, yellow fever"),
        ("type 2 diabetes", "diabetes; type 2 diabetes"),
        ("It is dark red", "red, dark red"),
        ("北京市", "北京, 北京市"),
    ],
)
def test_item_within_another_one_is_not_said_by_it(said, gold):
    assert grade(SETS, said, gold) == 3, "one of two"
    assert grade(SETS, f"{gold.partition(',')[0].partition(';')[0]} and {said}", gold) == 5


def test_sign_before_what_is_no_number_counts():
    assert [grade(ExactMatch(), said, "∞") for said in ("∞", "-∞", "−∞")] == [5, 1, 1]
    assert [grade(ExactMatch(), said, "-√2") for said in ("−√2", "√2")] == [5, 1]


def test_exact_is_five_or_one():
    assert [grade(ExactMatch(), said, "Eye") for said in ("eye.", "the eye", "Eye or ear")] == [5, 5, 1]


# -- recorded answers ----------------------------------------------------------------------------

RECORDED = json.loads((DATA / "recorded_answers.json").read_text(encoding="utf-8"))["rows"]
# Judged by hand from the answers, by the rubric of the assessor that suits their shape.
JUDGED = {
    "number": [2, 2, 2, 3, 2, 1, 4, 2, 2, 2],
    "list": [3, 5, 1, 5, 5, 3, 4, 5, 3, 4],
    "label": [4, 3, 1, 1, 3, 1, 4, 1, 1, 3],
}


@pytest.mark.parametrize("shape", JUDGED)
def test_recorded_answers_get_the_grades_that_they_were_judged_to_deserve(shape):
    rows = [Row(row["question"], row["answer"], row["gold"]) for row in RECORDED if row["shape"] == shape]
    labels = labels_of(row.gold for row in rows)
    assessor = {"number": numeric(), "list": SETS, "label": LabelMatch(labels)}[shape]
    said = dict(zip((row.prediction for row in rows), JUDGED[shape], strict=True))
    assert {row.prediction: one.grade for row, one in zip(rows, assessor.grade(rows), strict=True)} == said


@pytest.mark.parametrize("metric", ["rouge_l", "chrf"])
def test_recorded_sentence_overlaps_more_with_its_own_gold_than_with_any_other(metric):
    overlap = TextOverlap(metric, [0.2, 0.4, 0.6, 0.8])
    rows = [row for row in RECORDED if row["shape"] == "sentence"]
    golds = [row["gold"] for row in rows]
    nearest = [max(golds, key=lambda gold: overlap.score(row["answer"], gold)) for row in rows]
    assert nearest == golds


def test_right_letter_for_letter_is_five_and_only_that_among_the_recorded_sentences():
    overlap = TextOverlap("rouge_l", [0.2, 0.4, 0.6, 0.8])
    rows = [Row(row["question"], row["answer"], row["gold"]) for row in RECORDED if row["shape"] == "sentence"]
    fives = [row.question for row, one in zip(rows, overlap.grade(rows), strict=True) if one.grade == 5]
    assert fives == ["What is the capital of France?"]

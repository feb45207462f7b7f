"""What a word is, in many scripts: questions and answers that differ by a mark are two, spellings of one are one."""

import json

import polars as pl
import pytest

from apt_assets.landing.records import read_landed
from apt_assets.method.domain import build_domain
from apt_assets.method.splits import normalise, row_id, row_ids
from apt_assets.method.weaknesses import distinguishing_words
from resources.assessors import Row
from resources.assessors.labels import exact, grade, labels_of
from resources.assessors.overlap import TextOverlap
from resources.assessors.set_f1 import SetF1, SetF1Settings
from resources.words import letters, words

# Words that differ in a mark, a tone or a point alone.
DIFFER = {
    "Hindi": ["दिन", "दान", "दीन", "दून", "देन"],
    "Bengali": ["কাল", "কল", "কুল", "কোল"],
    "Tamil": ["கல்", "கால்", "கில்"],
    "Malayalam": ["കര", "കാര", "കിര"],
    "Thai": ["มา", "ม้า", "หมา", "ปา", "ป่า", "ป้า"],
    "Lao": ["ມາ", "ມ້າ", "ໝາ"],
    "Khmer": ["កា", "កុ", "កូ", "កេ"],
    "Burmese": ["မာ", "မား", "မိ", "မီး"],
    "Tibetan": ["བོད", "བད", "བུད"],
    "Hebrew points": ["סֵפֶר", "סַפָּר", "סָפַר"],
    "Arabic vowels": ["كَتَبَ", "كُتُب", "كُتِبَ"],
    "Vietnamese": ["ma", "má", "mà", "mả", "mã", "mạ"],
    "Japanese": ["かき", "かぎ", "がき"],
    "Turkish": ["sinir", "sınır"],
    "Greek": ["νόμος", "νομός"],
    "Powers": ["10² m", "102 m", "10 m"],
    "Beyond the basic plane": ["𞤀𞤣𞥄", "𞤀𞤣𞥆"],
}
# Spellings of the same.
SAME = {
    "composed or not": ["é", "e\u0301"],
    "Vietnamese composed or not": ["Tiếng", "Tie\u0302\u0301ng"],
    "Hindi nukta": ["क़लम", "क\u093cलम"],
    "kana with a sign of its own": ["ガム", "カ\u3099ム", "ｶﾞﾑ", "カ゛ム"],
    "Korean": ["한국", "\u1112\u1161\u11ab\u1100\u116e\u11a8"],
    "full width": ["ＡＢＣ１", "abc1"],
    "final sigma": ["ΛΟΓΟΣ", "λόγος".replace("ό", "ο"), "λογοσ"],
    "sharp s": ["STRASSE", "Straße"],
    "dotted capital": ["İzmir", "izmir"],
    "joiners": ["می\u200cخواهم", "میخواهم"],
    "tatweel": ["كـــتاب", "كتاب"],
    "soft hyphen": ["wind\u00admill", "windmill"],
    "break marks of Thai": ["ไทย\u200bแลนด์", "ไทยแลนด์"],
    "variation selector": ["❤\ufe0f x", "❤ x"],
    "lowered digits": ["H₂O", "H2O"],
    "a power and its sign": ["x²", "x^2"],
}


@pytest.mark.parametrize("these", DIFFER.values(), ids=DIFFER)
def test_words_that_differ_in_a_mark_are_other_questions_other_answers_and_other_labels(these):
    assert len({row_id(f"? {word}") for word in these}) == len(these)
    assert row_ids(pl.Series(these)) == [row_id(word) for word in these]
    labels = labels_of(these)
    assert len(labels) == len(these)
    for word in these:
        for other in these:
            # A label that holds the gold, as หมา holds มา, is taken for both: hedged.
            assert grade(other, word, labels) in ((5,) if other == word else (2, 3)), other
            assert exact(other, word) == (other == word)


@pytest.mark.parametrize("these", SAME.values(), ids=SAME)
def test_spellings_of_a_word_are_one_question_and_one_answer(these):
    assert len({row_id(text) for text in these}) == 1
    assert len(labels_of(these)) == 1
    assert all(grade(text, these[0]) >= 4 for text in these)


def test_rows_in_a_script_with_vowel_signs_contradict_each_other_no_more(tmp_path):
    rows = [
        {"prompt": f"{place} {word} का अर्थ?", "answer": f"{place}{n}"}
        for place in ("पहला", "दूसरा")
        for n, word in enumerate(DIFFER["Hindi"])
    ]
    (tmp_path / "hi.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    tables = build_domain(read_landed(tmp_path / "hi.jsonl"), 0.0, 0.0, 2)
    assert tables["train"].height == len(rows)
    assert tables["quarantine"].is_empty()


@pytest.mark.parametrize(
    ("said", "gold", "labels", "expected"),
    [
        ("答えは赤です。", "赤", ["赤", "青"], 4),
        ("答案是red。", "red", ["red", "blue"], 4),
        ("赤と青です", "赤", ["赤", "青"], 3),
        ("青です", "赤", ["赤", "青"], 2),
        ("赤紫です", "赤", ["赤", "赤紫"], 3),
        ("คำตอบคือไม่ใช่ครับ", "ไม่ใช่", ["ใช่", "ไม่ใช่"], 4),
        ("ไม่ใช่", "ใช่", ["ใช่", "ไม่ใช่"], 3),
        ("血型是A型", "A", ["A", "B", "AB"], 4),
        ("がきです", "か", [], 1),  # a letter is not named by one with another mark
        ("กำ", "ก", [], 1),
        ("เก", "ก", [], 1),
        ("きゃく", "き", [], 1),
        ("ខ្មែរ", "ម", [], 1),
        ("优+", "优", ["优", "优+"], 2),
    ],
)
def test_label_of_a_script_without_spaces_is_named_where_its_letters_stand(said, gold, labels, expected):
    assert grade(said, gold, labels_of(labels)) == expected


def test_letters_keep_what_stands_on_them():
    assert letters("ป่าไม้") == "ป่า ไม้"
    assert letters("きゃく") == "きゃ く"
    assert letters("ខ្មែរ") == "ខ្មែ រ"
    assert letters("red") == "red"


def test_overlap_of_a_script_without_spaces_is_by_letter_and_of_a_text_by_its_composed_form():
    rouge = TextOverlap("rouge_l", [0.2, 0.4, 0.6, 0.8])
    assert 0.5 < rouge.score("心臓は血液を体に送る", "心臓は血液を送り出す") < 1
    assert rouge.score("दान", "दिन") == 0
    assert TextOverlap("chrf", [0.2, 0.4, 0.6, 0.8]).score("cafe\u0301 noir", "café noir") == 1


def test_items_are_split_at_the_commas_of_other_scripts():
    assessor = SetF1(SetF1Settings().separator, [0.25, 0.5, 0.85, 1.0])
    for gold, said in (("赤、青", "青，赤"), ("أحمر، أزرق", "أزرق؛ أحمر"), ("दिन, दान", "दान, दिन")):
        assert assessor.grade_row(Row("?", said, gold)).grade == 5
    assert assessor.grade_row(Row("?", "दान", "दिन")).grade == 1


def test_words_that_name_a_weakness_are_whole():
    assert distinguishing_words(["हृदय रोग", "हृदय दर्द"], ["टूटा पैर"]).split(", ")[0] == "हृदय"


def test_symbols_and_punctuation_tell_no_two_questions_apart():
    assert normalise("3 + 4?") == normalise("3 - 4") == "3 4"
    assert words("it's a_b.c") == ["it", "s", "a", "b", "c"]

"""Files in other encodings: guessed in one line, landed readable once they are named, and never taken for another."""

import gzip
import json

import pytest

from apt_assets.landing.guess import looks_like
from apt_assets.landing.land import land_files
from apt_assets.landing.records import contents_of
from apt_assets.landing.taken_for import hints
from apt_assets.project import Project
from apt_assets.settings.experiment import UsageError
from tests.test_landing_formats import PLAIN, ROWS, read, table, write

SENTENCES = {
    "cp1252": "Größe für das Café in München", "shift_jis": "これは何色ですか、教えてください",
    "gbk": "这个东西是什么颜色的",
    "big5": "這個東西是什麼顏色的", "cp1251": "Какого цвета этот предмет", "cp949": "이 물건은 무슨 색입니까",
    "euc_jp": "これは何色ですか、教えてください",
}  # fmt: skip


@pytest.mark.parametrize("encoding", SENTENCES)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".csv.gz"])
def test_other_encoding_is_guessed_in_one_line_and_lands_readable_when_it_is_named(
    tmp_path, make_experiment, encoding, suffix
):
    rows = [{"prompt": f"{SENTENCES[encoding]} ({n})", "answer": f"a{n}"} for n in range(9)] + [
        ROWS[0] | {"prompt": "x"}
    ]
    text = table(";", rows=rows) if "csv" in suffix else "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    content = text.encode(encoding)
    path = write(tmp_path / f"d{suffix}", gzip.compress(content) if suffix.endswith("gz") else content)
    (report,) = land_files([path], tmp_path / "first", dry_run=True)
    assert (report["good"], len(report["bad"])) == (1, 9)
    (hint,) = report["hints"]
    place = next(n for n, byte in enumerate(content, 1) if byte > 127)
    assert hint.startswith(f"9 rows are not valid UTF-8, the first at byte {place} (0x{content[place - 1]:02X})")
    assert hint.endswith(f"it looks like {encoding}: land it with --encoding {encoding}")
    project = Project.open(make_experiment())
    (report,) = land_files([path], project.landing, encoding)
    assert (report["good"], report["bad"], report["hints"]) == (10, [], [])
    landed = project.landing / report["landed"]
    assert landed.suffix == f".{suffix.split('.')[1]}"
    assert landed.read_bytes().decode() == text
    assert [row[0] for row in read(landed)[0]] == [row["prompt"] for row in rows]


def test_column_names_that_are_not_utf_8_are_told_as_such(tmp_path):
    path = write(tmp_path / "d.csv", "prompt;answer;größe\nWas?;das;1\n".encode("cp1252"))
    (hint,) = hints(path, contents_of(path))
    assert hint.startswith("its column names are not valid UTF-8, the first at byte 17 (0xF6)")
    assert hint.endswith("--encoding cp1252")


def test_utf_8_with_a_damaged_byte_is_not_taken_for_another_encoding(tmp_path):
    path = write(tmp_path / "d.jsonl", PLAIN.encode().replace(b"Gr\xc3\xb6\xc3\x9fe 3;", b"Gr\xc3\xc3\x9fe 3;"))
    (hint,) = hints(path, contents_of(path))
    assert hint.startswith("1 row is not valid UTF-8")
    assert "damaged" in hint
    assert looks_like("é und ü".encode() + b"\xe9") == "utf-8"


@pytest.mark.parametrize(
    ("name", "content", "encoding", "reason"),
    [
        ("d.csv", table(","), "cp12", "'cp12' is no encoding"),
        ("d.csv", table(","), "hex", "'hex' is no encoding"),
        ("d.csv", table(","), "a\0b", "is no encoding"),
        ("d.csv", "prompt,answer\nü,1\n".encode("latin_1"), "gbk", "not valid gbk: near byte 15"),
        ("d.csv", b"prompt,answer\nab\x81,1\n", "cp1252", "not valid cp1252: near byte 17"),
        ("d.csv", table(",").encode("utf-8-sig"), "cp1252", "begins as utf-8-sig does"),
        ("d.jsonl", PLAIN.encode("utf-16"), "cp1252", "begins as utf-16 does"),
        ("d.parquet", b"PAR1", "cp1252", "Parquet says itself"),
    ],
)
def test_encoding_that_cannot_be_right_lands_nothing(tmp_path, name, content, encoding, reason):
    with pytest.raises(UsageError, match=r"^[^\n]*$") as error:
        land_files([write(tmp_path / name, content)], tmp_path / "landing", encoding)
    assert reason in str(error.value)
    assert not (tmp_path / "landing").exists()


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "utf-8-sig"])
def test_encoding_that_the_mark_says_as_well_is_right(tmp_path, encoding):
    (report,) = land_files([write(tmp_path / "d.csv", table(",").encode("utf-8-sig"))], tmp_path / "landing", encoding)
    assert (report["good"], report["bad"]) == (30, [])


def test_half_a_character_in_utf_16_costs_its_row(tmp_path):
    content = (PLAIN + '{"prompt": "\ud83d", "answer": "x"}\n' + json.dumps({"prompt": "z?", "answer": "z"})).encode(
        "utf-16", "surrogatepass"
    )
    rows, rejects = read(write(tmp_path / "d.jsonl", content))
    assert len(rows) == 31
    assert [line for line, _, _ in rejects] == [31]
    rows, rejects = read(write(tmp_path / "cut.jsonl", content[:-1]))
    assert len(rows) == 30
    assert "not valid utf-16" in rejects[-1][2]

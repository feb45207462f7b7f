"""Rows are read, identified and sorted out many at a time: with the same outcome as one by one, whatever the rows.

`by_hand` and `split_by_hand` say in plain Python, a row at a time, what must come out.
"""

import hashlib
import json
import random
import sys
import unicodedata

import pytest

from apt_assets.landing import json_lines
from apt_assets.landing.records import SPLITS, contents_of, read_landed
from apt_assets.method.domain import build_domain
from apt_assets.method.splits import row_id, row_ids, splits_of
from resources.store.digest import digest_json, digest_rows

# Text that goes wrong somewhere: white space that only some libraries strip, case that folds to another
# length, ligatures, what looks like the end of a line, quotes, the other planes, combining marks.
TEXTS = [
    "Capital of France?", "capital  of FRANCE", "  padded\t", "\u00a0no-break\u00a0", "\x1cseparator\x1f",
    "\u2003em\u2003",
    "\u200bzero width\u200b", "\ufeffmark", "Straße", "STRASSE", "İstanbul", "ﬁne", "fine", "K", "½ cup", "Ⅷ", "ǅ",
    "a\u2028b\u2029c\x85d", "line\nbreak", "carriage\rreturn", "form\x0cfeed", "\x0bvertical\x0b", "tab\tinside",
    '"quoted"', "back\\slash", "😀 smile", "e\u0301", "é", "?!", "...", "_", "__x__", "a_b", "3 + 4?", "3 - 4?",
    "\u0130", "\u017f", "x" * 70_000, "数学", "١٢", "दिन", "दान", "น้ำ", "\x7f", "\x01", "a\x00b", "", " ", "\u3000",
]  # fmt: skip
ODD_VALUES = [None, True, 7, -0.0, 1e400, float("nan"), 10**30, [], ["a"], {}, {"a": {"b": [None]}}]
# Whole lines, as bytes, that are not simply one good object.
LINES = [
    b"", b"  \t ", b"\x0c", b"\x0b \x0c", b"\xc2\xa0", b"\xe3\x80\x80", b"\xef\xbb\xbf", b"\x00", b"null", b"NaN",
    b"[]", b"{}", b'""', b"7",
    b'{"prompt": "a", "answer": "b"} {"prompt": "c", "answer": "d"}',
    b'{"prompt": "a", "answer": "b"}, {"prompt": "c", "answer": "d"}',
    b'{"prompt": "half",', b'"answer": "of it"}', b'{"prompt": "x", "more": [{"a": 1}', b'{"b": 2}], "answer": "y"}',
    b'{"prompt": "twice", "prompt": "the last counts", "answer": "a", "answer": "b"}',
    b'{"prompt": 1, "prompt": "after a number", "answer": "x"}',
    b'{"prompt": "t", "answer": "x", "v": [{"a": {}, "a": {}}]}',
    b'{"prompt": "caf\xe9", "answer": "x"}', b'{"prompt": "\xff", "answer": "x"}', b'\xff\xfe{"a"',
    b'{"prompt": "\\ud800", "answer": "x"}', b'{"prompt": "\xed\xa0\x80", "answer": "x"}',
    b'{"prompt": "\\ud83d\\ude00", "answer": "x"}', b'{"prompt": "q", "answer": "\\udc00 x"}',
    b'{"prompt": "q", "answer": "x", "note": "\\ud800"}', b'{"prompt": "q", "answer": "x", "\\ud800": 1}',
    b'{"prompt": "q", "answer": "x", "metadata": {"a": "\\udfff"}}', b'{"prompt": "q", "answer": "x", "id": "\\ud900"}',
    b'{"prompt": "q", "answer": "x", "id": "a\\u0000b"}', b'{"prompt": "q", "answer": "x", "note": "\\u0000"}',
    b'{"prompt": "tail", "answer": "x"} \t ', b'\t {"prompt": "head", "answer": "x"}',
    b'\xc2\xa0{"prompt": "h", "answer": "x"}',
    b'{"prompt": "tail", "answer": "x"}\x0c', b'{"prompt": "tail", "answer": "x"}x',
    b'{"prompt": "tail", "answer": "x"}\x00',
    b'\xef\xbb\xbf{"prompt": "mark", "answer": "x"}', b'{"prompt": "raw\ttab", "answer": "x"}', b"{'prompt': 'single'}",
    b'{"prompt": "n", "answer": "x", "v": NaN, "w": -Infinity, "z": 1e999}', b'{"prompt": "n", "answer": "x", "v": 01}',
    b'{"prompt": "n", "answer": "x", "id": ' + b"9" * 40 + b"}",
    b'{"prompt": "n", "answer": "x", "id": ' + b"9" * 5000 + b"}",
    b'{"prompt": "n", "answer": "x", "id": 1.0}', b'{"prompt": "n", "answer": "x", "split": ["train"]}',
    b"[" * 100_000, b'{"prompt": "deep", "answer": "x", "v": ' + b"[" * 50 + b"]" * 50 + b"}",
    b'{"prompt": "long ' + b"y" * 300_000 + b'", "answer": "x"}',
]  # fmt: skip


def nasty_lines(draw, count):
    """Lines of a JSONL file: most good, some broken, some of every kind above."""
    for _ in range(count):
        if draw.random() < 0.3:
            yield draw.choice(LINES)
            continue
        record = {"prompt": draw.choice(TEXTS) + draw.choice(["", "", " 1", " 2"]), "answer": draw.choice(TEXTS[:12])}
        if draw.random() < 0.2:
            record["split"] = draw.choice(SPLITS)
        if draw.random() < 0.2:
            record[draw.choice(["id", "metadata", "note"])] = draw.choice(
                [3, "s", {"k": "ß"}, {}, "\u2028", *TEXTS[:9]]
            )
        if draw.random() < 0.1:
            record[draw.choice(["split", "id", "metadata"])] = draw.choice(ODD_VALUES)
        if draw.random() < 0.05:
            record[draw.choice(["prompt", "answer"])] = draw.choice(ODD_VALUES[:7])  # a list of them is a shape
        if draw.random() < 0.05:
            del record[draw.choice(list(record))]
        items = draw.sample(list(record.items()), len(record))
        yield json.dumps(dict(items), ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")


def write(path, lines, draw):
    ends = draw.choice([[b"\n"], [b"\r\n"], [b"\n", b"\r\n", b"\n\n", b"\n \n"]])
    content = b"".join(line + draw.choice(ends) for line in lines)
    path.write_bytes(content.rstrip(b"\r\n") if draw.random() < 0.5 else content)
    return path


def by_hand(path):
    """(line, prompt, answer, None, None, split, id, metadata, record) or (line, field, reason, raw), line by line."""
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            if raw.strip():
                found = row_by_hand(raw, first=line == 1)
                if len(found) == 5:
                    yield (line, *found[:2], None, None, *found[2:], digest_json(list(found))[:16])
                else:
                    text = raw.decode("utf-8", "backslashreplace").rstrip("\r\n")[:500]
                    yield (line, *found, text)


def row_by_hand(raw, first):
    try:
        record = json.loads(raw.decode("utf-8-sig" if first else "utf-8"), object_pairs_hook=once)
    except KeyError as error:
        return error.args[0], "stands there twice as a key: take one of them out, or rename it"
    except UnicodeDecodeError as error:
        return None, f"not valid UTF-8 at byte {error.start + 1}"
    except RecursionError:
        return None, "JSON is nested too deeply"
    except ValueError as error:
        return None, f"not valid JSON: {error}"
    if not isinstance(record, dict):
        return None, f"must be an object with prompt and answer, got {type(record).__name__}"
    if missing := [field for field in ("prompt", "answer") if record.get(field) is None]:
        return missing[0], "missing"
    for field in ("prompt", "answer"):
        value = record[field]
        if not isinstance(value, str):
            return field, f"must be text, got {type(value).__name__}: write it as text, in quotes"
        if not value.strip():
            return field, "empty"
    for field in ("prompt", "answer"):
        if "\0" in record[field]:
            return field, "holds a NUL character"
        if lone_surrogate(record[field]):
            return field, "holds a lone surrogate, which is not text"
    split, source_id, given = record.get("split"), record.get("id"), record.get("metadata")
    kept = set(side_fields_of_no_use(split, source_id))
    used = {"prompt", "answer", "split", "id", "metadata"} - kept
    others = {name: value for name, value in record.items() if name not in used}
    metadata = others | (given if isinstance(given, dict) else {} if given is None else {"metadata": given})
    text = json.dumps(metadata, ensure_ascii=False)
    text = json.dumps(metadata) if lone_surrogate(text) else text
    split = None if "split" in kept else split
    source_id = None if "id" in kept or source_id is None else source_id
    if isinstance(source_id, float):
        source_id = int(source_id)
    source_id = None if source_id is None else str(source_id)
    return record["prompt"].strip(), record["answer"].strip(), split, source_id, None if text == "{}" else text


def side_fields_of_no_use(split, source_id):
    """Those of split and id that stay with the metadata."""
    if split is not None and split not in SPLITS:
        yield "split"
    whole = isinstance(source_id, int | float) and not isinstance(source_id, bool) and source_id % 1 == 0
    if not (source_id is None or whole or (isinstance(source_id, str) and not lone_surrogate(source_id))):
        yield "id"


def once(pairs):
    found = {}
    for name, value in pairs:
        if name in found:
            raise KeyError(name)
        found[name] = value
    return found


def lone_surrogate(text):
    return any("\ud800" <= character <= "\udfff" for character in text)


def row_id_by_hand(prompt):
    folded = unicodedata.normalize("NFKC", prompt).casefold().replace("i\u0307", "i")
    words = " ".join("".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded).split())
    return hashlib.sha256((words or prompt).encode()).hexdigest()[:16]


def split_by_hand(row, validation, test):
    share = int(hashlib.sha256(f"split:{row}".encode()).hexdigest()[:13], 16) / 16**13
    return "test" if share < test else "validation" if share < test + validation else "train"


@pytest.fixture(params=range(12))
def draw(request):
    return random.Random(request.param)


@pytest.fixture
def nasty_file(tmp_path, draw, monkeypatch):
    # Small chunks, so that some hold only good lines and others not.
    monkeypatch.setattr(json_lines, "CHUNK_BYTES", draw.choice([1, 300, 3000, 1 << 22]))
    lines = list(nasty_lines(draw, 250))
    if draw.random() < 0.5:
        lines.insert(0, b'\xef\xbb\xbf{"prompt": "first", "answer": "with a byte order mark"}')
    return write(tmp_path / "data.jsonl", lines, draw)


def test_rows_and_rejects_of_a_nasty_file_are_those_found_line_by_line(nasty_file):
    parts = list(read_landed(nasty_file))
    rows = [row for part in parts for row in part.rows.iter_rows()]
    rejects = [(r.line, r.field, r.reason, r.raw) for part in parts for r in part.rejects]
    expected = list(by_hand(nasty_file))
    assert rows == [row for row in expected if len(row) == 9]
    assert [(*r[:3], encoded(r[3])) for r in rejects] == [(*r[:3], encoded(r[3])) for r in expected if len(r) == 4]
    assert len(rows) > 50
    assert len(rejects) > 30


def encoded(text):
    return text.encode("utf-8", "backslashreplace")


def test_digest_of_a_nasty_file_is_of_its_rows_and_rejects_whatever_their_order(nasty_file):
    rejects = [reject for part in read_landed(nasty_file) for reject in part.rejects]
    bad = [digest_json(["reject", r.field, r.reason, r.raw])[:16] for r in rejects]
    good = [row[8] for row in by_hand(nasty_file) if len(row) == 9]
    found = contents_of(nasty_file)
    assert found.digest == digest_json(sorted(good + bad))
    assert (found.rows, found.rejects) == (len(good), rejects)


def test_dataset_of_repeated_contradicting_and_moved_questions_is_that_of_one_row_after_another(tmp_path, draw):
    lines = []
    for n in range(400):
        record = {"prompt": draw.choice(TEXTS[:30]) + f" {n % 9}", "answer": draw.choice(["x", "x", "x", "y"])}
        if draw.random() < 0.4:
            record["split"] = draw.choice(SPLITS)
        lines.append(json.dumps(record).encode())
    files = [write(tmp_path / f"{name}.jsonl", lines[start::2], draw) for name, start in (("b", 0), ("a", 1))]
    tables = build_domain((part for file in files for part in read_landed(file)), 0.3, 0.3, None)
    kept, rejected = {}, []
    rows = [(file.name, row[8], *row[1:3], row[5]) for file in files for row in by_hand(file) if len(row) == 9]
    for file, record, prompt, answer, declared in sorted(rows, key=lambda row: row[:2]):
        key = row_id_by_hand(prompt)
        split = declared or split_by_hand(key, 0.3, 0.3)
        first = kept.setdefault(key, (prompt, answer, split, file, record))
        if answer != first[1]:
            rejected.append((file, record, "answer", f"contradicts {first[3]}: {first[0]} -> {first[1]}"))
        elif declared == "train" != first[2]:
            rejected.append((file, record, "split", f"held out by {first[3]}: {first[0]}"))
        elif declared and declared != first[2]:
            kept[key] = (prompt, answer, split, file, record)
            rejected.append((*first[3:], "split", f"held out by {file}: {prompt}"))
    for name in SPLITS:
        assert tables[name].rows() == sorted(
            (key, p, a, None) for key, (p, a, split, *_) in kept.items() if split == name
        )
    where = sorted((key, split, file, record) for key, (_, _, split, file, record) in kept.items())
    assert tables["provenance"].select("row_id", "split", "file", "record").rows() == where
    quarantined = tables["quarantine"].select("file", "record", "field", "reason").rows()
    assert quarantined == sorted((*row[:3], row[3][:500]) for row in rejected)
    assert any(row[2] == "answer" for row in quarantined)
    assert any(row[2] == "split" for row in quarantined)


def test_identity_and_split_of_a_question_are_for_ever():
    import polars as pl

    prompts = [text for text in TEXTS if text and "\0" not in text]
    assert row_ids(pl.Series(prompts)) == [row_id(p) for p in prompts] == [row_id_by_hand(p) for p in prompts]
    assert row_id("Capital of France?") == "80893eabedbf11af"
    many = [row_id(f"question {n}") for n in range(500)]
    assert splits_of(many, 0.2, 0.3) == [split_by_hand(row, 0.2, 0.3) for row in many]
    assert set(splits_of(many, 0.2, 0.3)) == set(SPLITS)


def test_value_that_few_rows_have_leaves_the_digests_of_the_others_as_they_are():
    columns, more = (["a", "b", "null"], ["c", None, "d"]), [None, "null", '["x"]']
    found = digest_rows(*columns, optional=more, digits=64)
    rows = [["a", "c"], ["b", None, "null"], ["null", "d", '["x"]']]
    assert found == [digest_json(row) for row in rows]
    with pytest.raises(ValueError, match="shorter"):
        digest_rows(["a", "b"], optional=["c"], digits=64)


def test_digests_of_many_rows_are_those_of_each_row():
    columns = TEXTS, [None, *TEXTS[1:]], TEXTS[::-1]
    assert digest_rows(*columns, digits=64) == [digest_json(list(row)) for row in zip(*columns, strict=True)]
    assert digest_rows([], [], digits=64) == []
    with pytest.raises(ValueError, match="shorter"):
        digest_rows(["a", "b"], ["a"], digits=64)


def test_lines_that_would_join_to_one_object_are_each_rejected(tmp_path):
    """Two objects on one line and one object on two: their number is right, and no line is."""
    path = tmp_path / "data.jsonl"
    path.write_bytes(
        b'{"prompt": "a", "answer": "b"}, {"prompt": "c", "answer": "d"}\n'
        b'{"prompt": "e", "x": [{"y": 1}\n{"z": 1}], "answer": "f"}\n'
    )
    (part,) = read_landed(path)
    assert part.rows.height == 0
    assert [reject.line for reject in part.rejects] == [1, 2, 3]


def test_file_that_ends_inside_a_csv_quote_keeps_the_rows_before_it(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text('prompt,answer\na?,1\nb?,2\n"c?,3\n')
    parts = list(read_landed(path))
    assert [row for part in parts for row in part.rows["prompt"]] == ["a?", "b?"]
    ((line, reason),) = [(reject.line, reject.reason) for part in parts for reject in part.rejects]
    assert line == 0
    assert reason.startswith("the file cannot be read on")


def test_metadata_nested_about_as_deep_as_can_be_read_costs_no_other_row(tmp_path):
    path = tmp_path / "data.jsonl"
    depths = range(sys.getrecursionlimit() - 150, sys.getrecursionlimit() + 10)
    deep = [f'{{"prompt": "q {n}", "answer": "x", "v": {"[" * n}{"]" * n}}}' for n in depths]
    path.write_text("\n".join([*deep, '{"prompt": "last", "answer": "x"}']))
    parts = list(read_landed(path))
    rejects = [reject for part in parts for reject in part.rejects]
    assert sum(part.rows.height for part in parts) + len(rejects) == len(deep) + 1
    assert parts[-1].rows["prompt"][-1] == "last"
    assert {reject.reason for reject in rejects} == {"JSON is nested too deeply"}

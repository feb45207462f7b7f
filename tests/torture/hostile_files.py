"""Files that are made to break a reader, each with the rows in it that must be kept."""

import gzip
import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MARK = "good row"  # what the prompts of rows begin with that must be kept
ANY = -1  # no one can know how many rows of a file are bad
INSTRUCTIONS = Path(__file__).parents[1] / "data" / "hostile_answers.json"


@dataclass(frozen=True)
class Case:
    """One file or folder to land.

    write: makes it at a path. good: the prompts to be kept. bad: how many records have to be rejected, or ANY.
    refused: a piece of the error that lands nothing; None: there is none.
    """

    kind: str
    name: str
    write: Callable[[Path], Any]
    good: tuple[str, ...] = ()
    bad: int = ANY
    refused: str | None = None


def prompts(count: int) -> tuple[str, ...]:
    return tuple(f"{MARK} {n}?" for n in range(count))


def row(prompt: str, answer: str = "yes", **more: Any) -> bytes:
    return json.dumps({"prompt": prompt, "answer": answer, **more}, ensure_ascii=False).encode("utf-8", "surrogatepass")


def all_cases(short: bool) -> Iterator[Case]:
    """About 130 cases; short: about 80, without those that take a second or more."""
    yield from lines()
    yield from texts()
    yield from json_lines(short)
    yield from json_lists(short)
    yield from packed(short)
    yield from csv_files(short)
    yield from parquet_files(short)
    yield from names()
    yield from folders()


# -- JSONL -----------------------------------------------------------------------------------------------


def between(kind: str, name: str, *broken: bytes, bad: int | None = None, end: bytes = b"\n") -> Case:
    """Broken lines, each between two good ones."""
    good = prompts(len(broken) + 1)
    written = [row(good[0])]
    for prompt, line in zip(good[1:], broken, strict=True):
        written += [line, row(prompt)]
    return Case(
        kind,
        f"{name}.jsonl",
        lambda path: path.write_bytes(end.join(written)),
        good,
        len(broken) if bad is None else bad,
    )


def lines() -> Iterator[Case]:
    kind = "JSONL with broken lines"
    yield between(kind, "cut off", b'{"prompt": "a?", "answer": ', b'{"prompt": "a?', b"{", b"[", b'"')
    yield between(kind, "no object", b"null", b"7", b"[]", b'"text"', b"true", b"NaN", b"-Infinity")
    yield between(
        kind, "no JSON", b"{'prompt': 'a'}", b"{prompt: 1}", b"prompt,answer", b"<xml/>", b"\\", b"// comment"
    )
    yield between(kind, "two objects", row("a?") + row("b?"), row("a?") + b", " + row("b?"), row("a?") + b"]")
    yield between(kind, "half and half", b'{"prompt": "half",', b'"answer": "of it"}')
    yield between(kind, "trailing commas", row("a?") + b",", b'{"prompt": "a?", "answer": "b",}')
    yield between(kind, "wrong types", *(row("a?", answer=value) for value in (7, None, [], {}, True)))
    yield between(
        kind,
        "wrong ids",
        row("a?", id=True),
        row("a?", id=[1]),
        row("a?", id={"$ne": None}),
        row("a?", id=1.5),
        bad=0,
    )
    yield between(kind, "wrong splits", row("a?", split="dev"), row("a?", split=["train"]), row("a?", split=1), bad=0)
    yield between(kind, "wrong metadata", row("a?", metadata=3), row("a?", metadata=[]), row("a?", metadata="x"), bad=0)
    yield between(
        kind, "not UTF-8", b'{"prompt": "caf\xe9"}', b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"
    )
    yield between(kind, "NUL", b"\x00", b"\x00" * 1000, row("a\x00b?"), row("a?", "b\x00"))
    yield between(kind, "half characters", *(row(f"a{half}?") for half in ("\ud800", "\udfff", "\udc00\ud800")))
    yield between(kind, "escaped half characters", b'{"prompt": "\\ud83d", "answer": "b"}', row("a?", "\ud83d"))
    yield between(kind, "empty texts", row(""), row("  \t"), row("a?", ""), row("\u3000"), row("a?", "\x1f"))
    yield between(kind, "deep nesting", b"[" * 100_000, b'{"a":' * 100_000, b"[" * 5000 + b"]" * 5000)
    deep = "[" * 900 + "]" * 900
    yield between(kind, "deep values", f'{{"prompt": "a?", "answer": "b", "split": {deep}}}'.encode(), bad=0)
    yield between(kind, "long numbers", b"9" * 5000, row("a?")[:-1] + b', "id": ' + b"1" * 5000 + b"}")
    yield between(
        kind, "chats", *(json.dumps({"messages": turns}).encode() for turns in ({}, [], [[]], [{"role": []}]))
    )
    yield between(
        kind, "choices", *(json.dumps({"question": "a?", "choices": c}).encode() for c in ([], ["a", "a"], 3))
    )
    yield between(kind, "Windows line ends", b"{broken", b"null", end=b"\r\n")
    yield between(kind, "one each", *[b"{broken"] * 2000)


def json_lines(short: bool) -> Iterator[Case]:
    kind = "JSONL"
    size = 1 << (25 if short else 27)  # 32 or 128 MiB
    good = prompts(2)
    first, last = row(good[0]) + b"\n", b"\n" + row(good[1])

    def around(path: Path, unit: bytes, count: int, before: bytes = b"", after: bytes = b"") -> None:
        with path.open("wb") as file:
            file.write(first + before)
            for _ in range(count // 1000):
                file.write(unit * 1000)
            file.write(after + last)

    def long(name: str, unit: bytes, before: bytes = b"", after: bytes = b"") -> Case:
        return Case(
            "rows of 100 MB",
            f"{name}.jsonl",
            lambda path: around(path, unit, size // len(unit), before, after),
            good,
            1,
        )

    yield long("a text", b"x", b'{"prompt": "', b'", "answer": "b"}')
    yield long("spaces", b" ", b'{"prompt": "a?"', b"}")
    yield long("an array", b"[],", b'{"prompt": "a?", "answer": "b", "v": [', b"1]}")
    yield long("no JSON at all", b"\x00\xff")
    yield long("open brackets", b"[")
    yield Case(kind, "empty.jsonl", lambda path: path.write_bytes(b""), bad=0)
    yield Case(kind, "blank lines.jsonl", lambda path: around(path, b"\n", 2_000_000), good, 0)
    yield Case(kind, "byte order mark.jsonl", lambda path: path.write_bytes(b"\xef\xbb\xbf" + first + last), good, 0)
    yield Case(kind, "UTF-16.jsonl", lambda path: path.write_bytes((first + last).decode().encode("utf-16")))
    yield Case(kind, "compressed.jsonl", lambda path: path.write_bytes(gzip.compress((first + last) * 1000)))
    yield Case(
        kind, "one array.jsonl", lambda path: path.write_bytes(b"[\n" + first[:-1] + b",\n" + last + b"\n]"), good, 0
    )
    yield Case(kind, "noise.jsonl", lambda path: path.write_bytes(random.Random(1).randbytes(2_000_000)))
    yield Case(
        kind, "many fields.jsonl",
        lambda path: path.write_bytes(row(good[0], **{str(n): n for n in range(200_000)}) + last), good, 0,
    )  # fmt: skip
    yield Case(
        kind, "same field again.jsonl",
        lambda path: path.write_bytes(first[:-2] + b', "answer": "yes"' * 100_000 + b"}" + last), good[1:], 1,
    )  # fmt: skip
    yield Case(
        kind,
        "same id.jsonl",
        lambda path: path.write_bytes(b"\n".join(row(p, id="1") for p in prompts(50))),
        prompts(50),
        0,
    )
    yield Case(
        kind, "answers that contradict.jsonl",
        lambda path: path.write_bytes(first + b"\n".join(row("same?", str(n)) for n in range(20_000)) + last), good, 0,
    )  # fmt: skip


def json_lists(short: bool) -> Iterator[Case]:
    kind = "JSON lists"
    good = prompts(3)
    first, second, third = map(row, good)

    def around(name: str, *garbage: bytes, bad: int) -> Case:
        """Garbage between the rows of a list, by itself and with commas."""
        content = (
            b"[" + b"".join(b"\n%s,\n%s,\n" % (first, piece) for piece in garbage) + second + b",\n" + third + b"]"
        )
        return Case(kind, f"{name}.json", lambda path: path.write_bytes(content), good, bad)

    yield around("garbage", b"oops", b"'a'", b"}", b"]]", b"\x00", bad=ANY)
    yield around("no objects", b"null", b"7", b"[]", b'"text"', b"[[1]]", bad=5)
    yield around("cut off", b'{"prompt": "a?", "answer": ', b'{"prompt": "a?', b"{", b'"', bad=ANY)
    yield around("the same key again", first[:-1] + b', "answer": "no"}', bad=1)
    yield around("too deep", b"[" * 100_000, b'{"a":' * 100_000, bad=ANY)
    yield around("not UTF-8", b'{"prompt": "caf\xe9"}', b"\xff", bad=2)
    yield around("long", b'{"prompt": "' + b"x" * (1 << 25) + b'", "answer": "b"}', b" " * (1 << 25) + b"null", bad=2)
    yield Case(kind, "brackets.json", lambda path: path.write_bytes(b"[{" * (1 << (20 if short else 23))))
    yield Case(kind, "quotes.json", lambda path: path.write_bytes(b'[{"' * (1 << (20 if short else 23))))
    yield Case(
        kind, "never closed.json", lambda path: path.write_bytes(b"[" + b",".join((first, second, third))), good, 1
    )
    yield Case(
        kind, "rows under a name that is there twice.json",
        lambda path: path.write_bytes(b'{"data": [%s], "data": [%s]}' % (first, second)), bad=1,
    )  # fmt: skip
    yield Case(
        kind, "many names.json",
        lambda path: path.write_bytes(json.dumps({str(n): [n] for n in range(100_000)}).encode()), bad=1,
    )  # fmt: skip


def packed(short: bool) -> Iterator[Case]:
    kind = "packed"
    good = prompts(2000)
    text = b"\n".join(map(row, good))

    def case(name: str, content: bytes, good: tuple[str, ...] = (), bad: int = ANY) -> Case:
        return Case(kind, name, lambda path: path.write_bytes(content), good, bad)

    size = 1 << (28 if short else 31)
    yield case("whole.jsonl.gz", gzip.compress(text), good, 0)
    yield case("members.jsonl.gz", gzip.compress(text[:9999]) + gzip.compress(text[9999:]), good, 0)
    yield case("cut off.jsonl.gz", gzip.compress(text)[:-40], good[:1000])
    yield case("cut off.jsonl.zst", pa.compress(text, "zstd", asbytes=True)[:-40], bad=1)
    yield case("garbage after it.jsonl.gz", gzip.compress(text) + b"garbage", good, 1)
    yield case("only a head.csv.gz", gzip.compress(b"")[:10], bad=1)
    yield case("empty.csv.gz", gzip.compress(b""), bad=0)
    yield case("packed twice.csv.gz", gzip.compress(gzip.compress(text)), bad=1)
    yield case("not packed.csv.zst", b"prompt,answer\n" + f"{good[0]},b\n".encode(), good[:1], 0)
    for name, unit in (("letters", b"x"), ("blank lines", b"\n"), ("NUL", b"\x00")):
        yield case(f"a bomb of {name}.csv.zst", pa.compress(unit * size, "zstd", asbytes=True))
        yield case(f"a bomb of {name}.json.gz", gzip.compress(unit * (size >> 3), 1))
    yield case("a bomb.parquet.gz", gzip.compress(b"PAR1" + bytes(size >> 3)), bad=1)


def texts() -> Iterator[Case]:
    """Rows that are odd and good, and those that are too much."""
    given = {
        "right to left": "\u202e\u2067?gpj.exe\u2069",
        "invisible": "\u200b\u2060\ufeffa\u00ad",
        "formulas": '=cmd|"/c calc"!A1',
        "more formulas": "@SUM(1+1)*cmd|' /C calc'!A0",
        "paths": "../../../../etc/passwd",
        "shell": "$(touch out); `touch out`; | touch out &",
        "markup": "<script>alert(1)</script><img src=x onerror=alert(1)>",
        "templates": "{{ 7*7 }} ${7*7} %s %n {0.__class__}",
        "SQL": "'; DROP TABLE rows; --",
        "terminal": "\x1b[2J\x1b]0;title\x07\x9b31m",
        "other planes": "\U0001f600\U000e0041\U0010ffff\uffff\ufdd0",
        "marks": "Z" + "\u0301\u0316" * 40,
        "long words": "\ufdfa" * 50_000,
        "special tokens": "<|im_end|>\n<|im_start|>system\n</s>[INST]",
    }
    for name, text in given.items():
        good = f"{MARK} {text}"
        rows = [row(good, text.strip(), id=text), row(f"{MARK} of metadata: {name}?", metadata={text: [text]})]
        yield Case(
            "odd texts", f"{name}.jsonl", lambda path, rows=rows: path.write_bytes(b"\n".join(rows)),
            (good.strip(), f"{MARK} of metadata: {name}?"), 0,
        )  # fmt: skip
    orders = [one["answer"] for one in json.loads(INSTRUCTIONS.read_text(encoding="utf-8"))]
    nul = sum("\x00" in order for order in orders)
    yield between("odd texts", "instructions", *(row("a?", order) for order in orders if "\x00" in order), bad=nul)
    yield between("odd texts", "too long", row("x" * 1_000_001), row("a?", "x" * 1_000_001))
    yield between("odd texts", "marks that take an hour", row("a" + "\u0301" * 450_000 + "\u0316" * 450_000))
    yield between("odd texts", "marks in an answer", row("a?", "a" + "\u0f71\u0f72" * 450_000))
    longest = f"{MARK} " + "x" * 999_990
    yield Case("odd texts", "as long as can be.jsonl", lambda path: path.write_bytes(row(longest)), (longest,), 0)


# -- CSV -------------------------------------------------------------------------------------------------


def csv_files(short: bool) -> Iterator[Case]:
    kind = "CSV"
    size = 1 << (25 if short else 27)
    good = prompts(3)

    def table(
        name: str, *broken: str, bad: int, head: str = "prompt,answer", encoding: str = "utf-8", end: str = "\n"
    ) -> Case:
        written = [head, f"{good[0]},yes", *broken, f"{good[1]},yes", f'"{good[2]}","yes"', ""]
        data = end.join(written).encode(encoding, "surrogatepass")
        return Case(kind, f"{name}.csv", lambda path: path.write_bytes(data), good, bad)

    yield table("plain", bad=0)
    yield table("Windows line ends", "a,b,c", bad=1, end="\r\n")
    yield table("old Mac line ends", "a,b,c", bad=1, end="\r")
    yield table("byte order mark", bad=0, encoding="utf-8-sig")
    yield table("ragged", "a", "a,b,c", ",", ",,,,", "a,", ",b", bad=6)
    yield table("quotes", '"a"b,c', '"a" ,b', 'a"b,c""', bad=2)
    yield table("NUL", "a\x00,b", "a,\x00", "\x00", bad=3)
    yield table("lines in a cell", '"a\nb\r\nc","d\n\n"', bad=0)
    yield table("formulas", '=1+1,"=HYPERLINK(""http://x"")"', "+1,-1", "@x,b", bad=0)
    data = f"prompt,answer,answer\n{good[0]},yes,no\n"
    yield Case(kind, "the same column again.csv", lambda path, data=data: path.write_text(data), bad=1)
    yield table("a column without a name", "a,b,c", bad=0, head="prompt,answer,")
    yield table("half characters", "a\ud800,b", bad=1)
    yield table("long cells", f"a,{'x' * 1_000_001}", f"{'x' * 2_000_000},b", bad=2)
    yield table("a quote open for 17 MiB", '"a' + f"\n{'swallowed ' * 100}" * 17_500 + '"', bad=ANY)
    for name, head in (("semicolons", "prompt;answer"), ("tabs", "prompt\tanswer"), ("bars", "prompt|answer")):
        data = f"{head}\n" + head.replace("prompt", good[0]).replace("answer", "b") + "\n"
        yield Case(kind, f"{name}.csv", lambda path, data=data: path.write_text(data), good[:1], 0)
    for encoding in ("utf-16", "utf-32", "utf-16-be"):
        data = f"prompt,answer\n{good[0]},b\n".encode(encoding)
        yield Case(kind, f"{encoding}.csv", lambda path, data=data: path.write_bytes(data), good[:1], 0)
    latin = b"prompt,answer\ncaf\xe9,b\n" + f"{good[0]},yes\n".encode()
    yield Case(kind, "Latin 1.csv", lambda path: path.write_bytes(latin), good[:1], 1)
    yield Case(kind, "empty.csv", lambda path: path.write_bytes(b""), bad=0)
    yield Case(kind, "only a head.csv", lambda path: path.write_text("prompt,answer\n"), bad=0)
    yield Case(
        kind,
        "a quote never closed.csv",
        lambda path: path.write_text(f'prompt,answer\n{good[0]},yes\n"a,b\nc,d\n'),
        good[:1],
        1,
    )
    yield Case(
        kind, "many columns.csv", lambda path: path.write_text(",".join(map(str, range(300_000))) + "\na,b\n"), bad=1
    )
    yield Case(kind, "noise.csv", lambda path: path.write_bytes(random.Random(2).randbytes(2_000_000)))

    def long(path: Path, before: str, after: str) -> None:
        with path.open("w") as file:
            file.write(f"prompt,answer\n{good[0]},yes\n{before}")
            for _ in range(size >> 20):
                file.write("x" * (1 << 20))
            file.write(f"{after}\n{good[1]},yes\n")

    yield Case("rows of 100 MB", "a cell.csv", lambda path: long(path, "", ",b"), good[:2], 1)
    yield Case("rows of 100 MB", "a quoted cell.csv", lambda path: long(path, '"', '",b'), good[:2], 1)
    yield Case(
        "rows of 100 MB", "a head.csv", lambda path: long(path, "", "") or path.write_bytes(path.read_bytes()[40:])
    )


# -- Parquet ---------------------------------------------------------------------------------------------


def parquet_files(short: bool) -> Iterator[Case]:
    kind = "Parquet"
    good = prompts(3)
    plain = {"prompt": list(good), "answer": ["yes"] * 3}

    def table(name: str, columns: Any, good: tuple[str, ...] = (), bad: int = ANY, **options: Any) -> Case:
        return Case(kind, f"{name}.parquet", lambda path: pq.write_table(pa.table(columns), path, **options), good, bad)

    def changed(name: str, change: Callable[[bytearray], Any]) -> Case:
        def write(path: Path) -> None:
            many = {"prompt": [f"q {n}?" for n in range(500)], "answer": [f"a {n % 9}" for n in range(500)]}
            pq.write_table(pa.table(many), path)
            content = bytearray(path.read_bytes())
            path.write_bytes(change(content) or content)

        return Case(kind, f"{name}.parquet", write)

    def flip(seed: int) -> Callable[[bytearray], None]:
        def change(content: bytearray) -> None:
            draw = random.Random(seed)
            # Half of them in the footer, which says how the rest is to be read.
            low = len(content) - 600 if seed % 2 else 0
            for place in draw.sample(range(low, len(content)), 1 + seed):
                content[place] ^= 1 << draw.randrange(8)

        return change

    for seed in range(4 if short else 30):
        yield changed(f"flipped bits {seed}", flip(seed))
    for share in (0.5,) if short else (0.01, 0.25, 0.5, 0.75, 0.99):
        yield changed(f"cut off at {share:.0%}", lambda content, share=share: content[: int(len(content) * share)])
    yield changed("a footer of 4 GiB", lambda content: content[:-8] + b"\xff\xff\xff\xffPAR1")
    yield table("long text", {"prompt": [*good, "x" * (20 << 20)], "answer": ["yes"] * 4}, good, 1)
    yield table("millions of empty rows", {"prompt": pa.nulls(5_000_000, pa.string())}, bad=1)
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 9000, pa.int32()), pa.array(["x" * 1_000_001]))
    yield table("one long text 9000 times", {"prompt": long, "answer": long}, bad=1)
    raw = pa.array([p.encode() for p in good[:2]] + [b"\xff\xfe?"], pa.binary())
    broken = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    yield table("not UTF-8", {"prompt": broken, "answer": ["yes"] * 3}, good[:2], 1)
    yield table("dates past 9999", {**plain, "when": pa.array([0, 0, 2**62], pa.timestamp("us"))}, good[:2], 1)
    if short:
        return
    yield Case(kind, "empty.parquet", lambda path: path.write_bytes(b""), bad=1)
    yield Case(kind, "magic alone.parquet", lambda path: path.write_bytes(b"PAR1PAR1"), bad=1)
    yield Case(kind, "encrypted.parquet", lambda path: path.write_bytes(b"PARE" + bytes(100) + b"PARE"), bad=1)
    yield Case(kind, "JSONL inside.parquet", lambda path: path.write_bytes(row("a?") * 100), bad=1)
    yield Case(
        kind,
        "noise.parquet",
        lambda path: path.write_bytes(b"PAR1" + random.Random(3).randbytes(99_999) + b"PAR1"),
        bad=1,
    )
    yield table("no rows", {"prompt": pa.array([], pa.string())}, bad=0)
    yield table("no columns", {}, bad=0)
    yield table("wrong types", {"prompt": [1, 2], "answer": [b"a", b"b"]}, bad=2)
    yield table("categories", {**plain, "tag": pa.array(["a", "b", "a"]).dictionary_encode()}, good, 0)
    yield table("nested", {**plain, "v": [{"a": [{"b": 1}]}, None, {"a": []}]}, good, 0)
    yield table("maps", {**plain, "v": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64()))}, good, 0)
    yield table("no such time zone", {**plain, "when": pa.array([0, 0, 0], pa.timestamp("us", "Mars/Base"))}, bad=3)
    yield table("thousands of columns", {**plain, **{f"c{n}": [1, 2, 3] for n in range(3000)}}, good, 0)
    many = prompts(2000)
    yield table("a group for each row", {"prompt": many, "answer": ["yes"] * 2000}, many, 0, row_group_size=1)
    yield table(
        "half a gigabyte of one letter", {"prompt": ["x" * (1 << 29)], "answer": ["b"]}, bad=1, compression="zstd"
    )
    inner: Any = pa.array([1, 2, 3])
    for _ in range(50):
        inner = pa.StructArray.from_arrays([inner], ["a"])
    yield table("50 levels", {**plain, "v": inner}, good, 0)


# -- names and folders -----------------------------------------------------------------------------------


def names() -> Iterator[Case]:
    (good,) = prompts(1)
    for name in (
        "-rf.jsonl", "--help.jsonl", ".hidden.jsonl", "....jsonl", "..%2f..%2fescape.jsonl", "a\nb.jsonl",
        "\x1b[2J.jsonl", " .jsonl",
        "\u202elnosj.exe.jsonl", "con.jsonl", "~.jsonl", "$(touch out).jsonl", "'; touch out; '.jsonl", "*.jsonl",
        os.fsdecode(b"\xff\xfe.jsonl"), "é" * 120 + ".jsonl", "a" * 249 + ".jsonl", "data.jsonl.partial.jsonl",
    ):  # fmt: skip
        yield Case("names", name, lambda path: path.write_bytes(row(good)), (good,), 0)
    for name in ("data.JSONL", "data.jsonl.gz", "data.Json.ZST"):
        yield Case("names", name, lambda path: path.write_bytes(row(good)), (good,), 0)
    for name in ("no suffix", "data.gz", "data.pkl.gz", "data.jsonl.bz2", "data.pkl", "data.jsonl~"):
        yield Case("names", name, lambda path: path.write_bytes(row(good)), refused="unknown format")


def folders() -> Iterator[Case]:
    kind = "folders, links, pipes"
    (good,) = prompts(1)

    def saved(path: Path, information: Any, state: Any) -> None:
        path.mkdir()
        (path / "dataset_info.json").write_text(json.dumps(information))
        (path / "state.json").write_text(json.dumps(state))

    def shards(path: Path) -> None:
        path.mkdir()
        pq.write_table(pa.table({"prompt": [good], "answer": ["yes"]}), path / "train.parquet")
        (path / "test.parquet").write_bytes(b"PAR1 broken PAR1")

    def inside(path: Path) -> None:
        path.mkdir()
        (path / "loop").symlink_to(".")
        pq.write_table(pa.table({"prompt": [good], "answer": ["yes"]}), path / "train.parquet")
        os.mkfifo(path / "test.parquet")

    yield Case(kind, "empty folder", Path.mkdir, refused="holds neither")
    yield Case(kind, "folder.jsonl", Path.mkdir, refused="holds neither")
    yield Case(kind, "broken shard", shards, refused="cannot be read as a data set")
    yield Case(kind, "pipe and loop", inside, (good,), 0)
    yield Case(kind, "pipe.jsonl", os.mkfifo, refused="is a pipe or a device")
    yield Case(
        kind, "link to a device.jsonl", lambda path: path.symlink_to("/dev/zero"), refused="is a pipe or a device"
    )
    yield Case(kind, "link to itself.jsonl", lambda path: path.symlink_to(path.name), refused="no such file")
    yield Case(kind, "link to nothing.jsonl", lambda path: path.symlink_to("nowhere"), refused="no such file")
    yield Case(
        kind, "link to a file.jsonl", lambda path: path.symlink_to("../secret.jsonl"), (f"{MARK} of a link?",), 0
    )
    outside = {"_data_files": [{"filename": "../../secret.jsonl"}], "_fingerprint": "0", "_split": "train"}
    yield Case(
        kind, "saved with a way out", lambda path: saved(path, {}, outside), refused="cannot be read as a data set"
    )
    yield Case(kind, "saved with a list", lambda path: saved(path, [], []), refused="cannot be read as a data set")

"""Evaluation rows planted among the training rows: does one of them reach pool, neighbours or pairs?"""

import json
import random
import re
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from apt_assets.landing.chunks import Chunk
from apt_assets.landing.records import Landed, sort_out
from apt_assets.method.domain import build_domain
from apt_assets.method.pairing import build_pairs
from apt_assets.method.splits import normalise
from apt_assets.settings.asking import Data
from resources.retrieval.retriever import make_pool, similar_cases
from resources.retrieval.vector_folder import VectorFolder
from resources.store.file_digests import FileDigests
from resources.store.rows import Batches
from schemas.tables import BadCases, Predictions
from tests.torture.part import Part

EMBEDDED = Path(__file__).resolve().parents[2] / ".apt" / "cache" / "icd10.jsonl"
DATA = Data()
WORDS = DATA.near_duplicate_words or 0
TEXT = f"""\
Rows of validation and test are edited and landed again as training rows, with other ids, in another file: {{most}} of
each kind, in the embedded domain and in a made-up one of longer questions. Then pool, neighbours (50 a case) and pairs
are made of the training rows, by the stages' own functions, with vectors under which an edited question is nearest to
where it came from. A failure is a planted row in one of these, or a held-out row that is gone. One word edited in a
question of fewer than {WORDS} words (`data.near_duplicate_words`) is not caught, by design, and counted for itself.
*Leave, nothing planted* are false alarms: training rows near to a held-out one as the lists are."""
# What made-up questions are made of: days, times, places, verbs, things, people.
DAYS, TIMES, PLACES, VERBS, THINGS, PEOPLE = (
    line.split()
    for line in """\
Monday Tuesday Wednesday Thursday Friday Saturday Sunday
dawn noon dusk midnight breakfast supper lunch sunrise sunset teatime
harbour orchard library station market chapel quarry meadow village factory castle garden
borrowed repaired painted carried measured weighed buried traded polished dropped guarded wrapped
ladder kettle lantern barrel basket hammer mirror saddle pillow ribbon candle bucket anchor needle
nurse pilot baker farmer lawyer tailor sailor miner potter weaver archer barber broker butcher""".splitlines()
)
WORD = re.compile(r"[^\W_]+")


def run(short: bool) -> Part:
    most = 15 if short else 400
    part = Part("Evaluation rows among the training rows", TEXT.format(most=most))
    rows = {"made up": made_up(1500 if short else 12_000)}
    if EMBEDDED.is_file():
        lines = EMBEDDED.read_text(encoding="utf-8").splitlines()
        rows["embedded"] = [json.loads(line) for line in (lines[::8] if short else lines)]
    for name, clean in rows.items():
        torture(part, name, clean, most)
    return part


def torture(part: Part, name: str, clean: list[dict], most: int) -> None:
    """Plant edits of up to `most` held-out rows of each kind among the rows of this domain."""
    before = dataset(clean)
    alarms = before["quarantine"].filter(pl.col("reason").str.starts_with("is within a word")).height
    rows = alarms + before["train"].height
    part.figures[f"{name}: training rows that leave, nothing planted"] = f"{alarms} of {rows} ({alarms / rows:.1%})"
    held = pl.concat([before["validation"], before["test"]]).rows(named=True)
    known = {normalise(row["prompt"]) for row in clean}
    planted: dict[str, dict[str, Any]] = {}
    for kind, edit in EDITS.items():
        draw = random.Random(f"{name} {kind}")
        for row in draw.sample(held, min(most, len(held))):
            text = (edit(row["prompt"], draw) or row["prompt"]).strip()  # as it lands
            # An edit that makes another question of the list is that question.
            if text != row["prompt"] and normalise(text) not in known - {normalise(row["prompt"])}:
                planted[text] = {"kind": kind, "from": row["prompt"], "answer": row["answer"]}
    copies = [{"prompt": t, "answer": p["answer"], "split": "train", "id": f"copy-{t}"} for t, p in planted.items()]
    after = dataset(clean, copies)
    reached = {"train": set(after["train"]["prompt"]), **loop_on(after["train"])}
    for kind in EDITS:
        its = [text for text, plant in planted.items() if plant["kind"] == kind]
        by_design = {text for text in its if kind in ONE_WORD and too_short(text, planted[text]["from"])}
        through = {place: (texts & set(its)) - by_design for place, texts in reached.items()}
        part.failures += [f"{name}: {kind}: {t!r} is in {place}" for place, texts in through.items() for t in texts]
        escaped = set.union(*through.values())
        expected = len(its) - len(by_design)
        part.figures[f"{name}: {kind}: caught of planted"] = f"{expected - len(escaped)} of {expected}"
        if kind in ONE_WORD and by_design:
            stays = len(by_design & reached["train"])
            part.figures[f"{name}: {kind}, fewer than {WORDS} words: stay by design"] = f"{stays} of {len(by_design)}"
    there = {*after["validation"]["prompt"], *after["test"]["prompt"]}
    part.failures += [f"{name}: the held-out {row['prompt']!r} is gone" for row in held if row["prompt"] not in there]


def too_short(*texts: str) -> bool:
    return min(len(normalise(text).split()) for text in texts) < WORDS


def dataset(*files: list[dict]) -> dict[str, pl.DataFrame]:
    parts = [landed(f"{number}.jsonl", rows) for number, rows in enumerate(files)]
    return build_domain(parts, DATA.validation, DATA.test, DATA.near_duplicate_words)


def landed(file: str, rows: list[dict]) -> Landed:
    return sort_out(file, Chunk(list(range(1, len(rows) + 1)), [b""] * len(rows), rows))


class WordVectors:
    """Instead of the encoder: the words of a text, so that an edited question is nearest to where it came from."""

    dimensions = 64

    def embed(self, texts: Sequence[str]) -> Batches[np.ndarray]:
        vectors = np.full((len(texts), self.dimensions), 1e-3, dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for word in normalise(text).split():
                vector[zlib.crc32(word.encode()) % self.dimensions] += 1
        yield range(len(texts)), list(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def loop_on(train: pl.DataFrame) -> dict[str, set[str]]:
    """Prompts in pool, neighbours and pairs if all training rows are answered wrong, every tenth a bad case."""
    schema = Predictions.empty().schema
    answered = train.with_columns(prediction=pl.lit("wrong"), grade=pl.lit(1, pl.Int8), exact=pl.lit(False))
    answered = answered.select(list(schema))
    cases = answered.gather_every(10).select(list(BadCases.empty().schema))
    with tempfile.TemporaryDirectory() as folder:
        table = VectorFolder(Path(folder) / "db", "vectors", FileDigests(Path(folder) / "digests.json").files)
        table.fill(train["prompt"].to_list(), WordVectors().embed)
        pool = make_pool(table, train)
        near = similar_cases(table, pool, cases, train, per_case=50)
    pairs = build_pairs(cases, cases, near, answered, bad_below=4, replay_share=0.0)
    pooled = pool.join(train, on="row_id")["prompt"]
    return {"pool": set(pooled), "neighbours": set(near["prompt"]), "pairs": set(pairs["prompt"])}


def made_up(count: int) -> list[dict]:
    """Questions of about 20 words, some of which happen to be within a word of each other."""
    draw = random.Random(7)
    rows = []
    for _ in range(count):
        day, time, place, verb, subject, thing, other = map(
            draw.choice, (DAYS, TIMES, PLACES, VERBS, PEOPLE, THINGS, THINGS)
        )
        text = (
            f"On {day} at {time}, near the {place}, someone {verb} a {thing} and then the other {other}: the {subject}?"
        )
        rows.append({"prompt": text, "answer": PLACES[(len(day) + len(subject)) % 5]})
    return rows


# -- edits: (question, draw) -> the edited question, or None where there is nothing to edit ----------------


def change_case(text: str, draw: random.Random) -> str:
    return "".join(draw.choice([c.upper(), c.lower()]) if c.isascii() else c for c in text)


def change_spacing(text: str, draw: random.Random) -> str:
    gaps = ["  ", "\t", "\u00a0", "\n", "\u2003", " \u3000"]
    return draw.choice(["", " "]) + re.sub(" ", lambda _: draw.choice(gaps), text) + draw.choice(gaps)


def change_punctuation(text: str, draw: random.Random) -> str:
    marks = [", ", " - ", "; ", " / ", "... ", " (", ") ", " _ ", " \u2014 "]
    return re.sub(" ", lambda _: draw.choice(marks), text) + draw.choice("?!.\u2026")


def break_or_join_words(text: str, draw: random.Random) -> str | None:
    if " " in text and draw.random() < 0.5:
        at = draw.choice([found.start() for found in re.finditer(" ", text)])
        return text[:at] + text[at + 1 :]
    words = [found for found in WORD.finditer(text) if len(found[0]) > 3]
    if not words:
        return None
    at = draw.choice(words).start() + 2
    return text[:at] + draw.choice("- '") + text[at:]


def change_width(text: str, draw: random.Random) -> str:
    """Full-width letters and digits, which NFKC folds."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" and draw.random() < 0.7 else c for c in text)


def substitute(text: str, draw: random.Random) -> str:
    found = draw.choice(list(WORD.finditer(text)))
    return text[: found.start()] + draw.choice([*THINGS, "7", "Ödem"]) + text[found.end() :]


def insert(text: str, draw: random.Random) -> str:
    at = draw.choice([found.start() for found in WORD.finditer(text)] + [len(text)])
    return f"{text[:at]} {draw.choice(THINGS)} {text[at:]}"


def leave_out(text: str, draw: random.Random) -> str:
    found = draw.choice(list(WORD.finditer(text)))
    return f"{text[: found.start()]} {text[found.end() :]}"


def mistype(text: str, draw: random.Random) -> str | None:
    words = [found for found in WORD.finditer(text) if len(found[0]) > 3]
    if not words:
        return None
    at = draw.choice(words).start() + draw.randrange(1, 3)
    return draw.choice([text[:at] + text[at + 1 :], text[:at] + text[at + 1] + text[at] + text[at + 2 :]])


ONE_WORD = {
    "one word substituted": substitute,
    "one word inserted": insert,
    "one word left out": leave_out,
    "typo inside a word": mistype,
}
EDITS = {
    "case": change_case,
    "spacing": change_spacing,
    "punctuation": change_punctuation,
    "space or mark inside a word": break_or_join_words,
    "full-width characters": change_width,
    **ONE_WORD,
}

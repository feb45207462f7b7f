"""Rows that are longer than what a model reads at once, found before anything is computed of them.

A file is looked at again only if its rows, the model or a setting changed that decides it; and of its rows those
alone are tokenised whose bytes could become too many tokens.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from apt_assets.landing.folder import LandingFolder
from apt_assets.landing.records import Landed, read_landed, width
from apt_assets.method.splits import row_ids, splits_of
from apt_assets.settings.asking import Data
from apt_assets.settings.experiment import Experiment, UsageError
from apt_assets.world.models import Models
from resources.assessors import Row
from resources.assessors.rubric import build_prompt
from resources.model.policy import Reader, encode, load_tokenizer
from resources.model.room import most_tokens
from resources.store.digest import digest_json
from resources.store.kinds import installed_version

COUNTED = 2  # raised when rows are counted otherwise, so that files are looked at again
SLACK = 16  # tokens that a template may take for a text beside those of a short one
SHOWN = 3  # rows in a message
REPLY = 32  # tokens, at most, of a grader's reply, of which the grades are scored


class Texts(NamedTuple):
    """What a landed row says; see Content (landing/records.py)."""

    prompt: str
    answer: str
    also: str | None = None
    rejected: str | None = None


@dataclass(frozen=True)
class Reading:
    """One way in which a model reads rows.

    folder: the model's. tokens: how many it has to read of a row, with what it writes.
    most: tokens at which what is longer is cut; None: nothing is. train_only: whether held-out rows are not read so.
    decided_by: what decides `tokens`. key: the setting that names the model. share, way_out: for people.
    """

    folder: Path
    tokens: Callable[[Texts], int]
    decided_by: list[Any]
    key: str
    share: str
    way_out: str
    most: int | None = None
    train_only: bool = False


def check_lengths(experiment: Experiment, models: Models, landing: LandingFolder) -> None:
    """Raise UsageError if rows of landed files are longer than what the models read that are to read them, or anchor
    texts are."""
    check_anchor_texts(experiment, models, landing)
    for reading in readings(experiment, models):
        count, found, limit = 0, [], limit_of(reading, landing)
        if limit is None or (reading.most is not None and reading.most <= limit):
            continue
        for name in landing.names():
            its = too_long_in(landing, name, reading, limit, experiment.data)
            count += its["count"]
            found += [f"{name} line {line} ({tokens:,} tokens)" for line, tokens in its["first"]]
        if count:
            rows = ", ".join(found[:SHOWN]) + (f" and {count - SHOWN} more" if count > SHOWN else "")
            raise UsageError(
                f"{reading.key} reads {limit:,} tokens at once, {reading.share}; longer: {rows}; "
                f"{reading.way_out}, or shorten these rows or take them out in {landing.path}"
            )


def check_anchor_texts(experiment: Experiment, models: Models, landing: LandingFolder) -> None:
    reading, tokens = next(readings(experiment, models)), experiment.anchor.tokens
    limit = limit_of(reading, landing) if experiment.anchor.texts else None
    if limit is None:
        return

    def longest_header() -> str:
        from resources.model.unprompted import headers, vocabulary

        begins = headers(load_tokenizer(reading.folder), vocabulary(reading.folder))
        return str(max(1, *map(len, begins.values())))

    header = int(landing.digests.once(f"header {decision(reading)[0]}", longest_header))
    if header + tokens > limit:
        raise UsageError(
            f"policy.model reads {limit:,} tokens at once, and an anchor text has {header} that it begins with and "
            f"anchor.tokens = {tokens:,} more: lower anchor.tokens"
        )


def limit_of(reading: Reading, landing: LandingFolder) -> int | None:
    """How many tokens the model reads at once; None: any number."""
    limit: int | None = json.loads(
        landing.digests.once(f"limit {decision(reading)[0]}", lambda: json.dumps(most_tokens(reading.folder)))
    )
    return limit


def too_long_in(landing: LandingFolder, name: str, reading: Reading, limit: int, data: Data) -> dict[str, Any]:
    """`too_long` of a landed file, which is read again only if a row of it could be."""
    decided_by = decision(reading)[1]
    shortest = int(landing.digests.once(f"shortest {decided_by}", lambda: str(reading.tokens(Texts("a", "a")))))
    room = limit - shortest - SLACK
    if landing.widest(name) <= room:
        return {"count": 0, "first": []}

    def look(path: Path) -> str:
        return json.dumps(too_long(read_landed(path), reading, limit, room, data))

    found: dict[str, Any] = json.loads(landing.derived(name, f"too long {decided_by}", look))
    return found


def too_long(parts: Iterable[Landed], reading: Reading, limit: int, room: int, data: Data) -> dict[str, Any]:
    """{count, first: [[line, tokens]]} of the rows of a file that are. room: what surely fits."""
    count = 0
    first: list[list[int]] = []
    for part in parts:
        rows = part.texts.filter(width() > room)
        if reading.train_only:
            by_content = pl.Series(splits_of(row_ids(rows["prompt"]), data.validation, data.test), dtype=pl.String)
            rows = rows.filter(pl.coalesce("split", by_content) == "train")
        for line, *texts in rows.select("line", *Texts._fields).iter_rows():
            if (tokens := reading.tokens(Texts(*texts))) > limit:
                count += 1
                first += [[line, tokens]] if len(first) < SHOWN else []
    return {"count": count, "first": first}


def readings(experiment: Experiment, models: Models) -> Iterator[Reading]:
    """How the models read rows: asking, training, grading."""
    policy, data, longest = experiment.policy, experiment.data, experiment.training.max_length
    reader = opened(models.base_model, policy.system_prompt)
    content = [models.identity("base_model"), policy.system_prompt]
    both = experiment.pairs.rejected == "given" and experiment.training.objective == "dpo"
    yield Reading(
        models.base_model,
        lambda texts: len(encode(reader(), texts.prompt)) + policy.max_new_tokens,
        [*content, policy.max_new_tokens],
        "policy.model",
        f"of which policy.max_new_tokens takes {policy.max_new_tokens}",
        "name a model that reads more in policy.model, lower policy.max_new_tokens",
    )
    yield Reading(
        models.base_model,
        lambda texts: trained_tokens(reader(), texts, both=both),
        [*content, data.validation, data.test, both],
        "policy.model",
        "the answer that is trained on included",
        "set training.max_length to as many or less, which cuts them",
        most=longest,
        train_only=True,
    )
    if models.grader is not None:
        rubric, grader = experiment.assessor.rubric.text, opened(models.grader, None)
        yield Reading(
            models.grader,
            lambda texts: graded_tokens(grader(), texts, rubric) + policy.max_new_tokens + REPLY,
            [models.identity("grader"), rubric, policy.max_new_tokens],
            "assessor.rubric.model",
            f"the rubric and an answer of {policy.max_new_tokens} tokens included",
            "name a model that reads more in assessor.rubric.model, shorten assessor.rubric.text",
        )


def opened(folder: Path, system_prompt: str | None) -> Callable[[], Reader]:
    """Loads the tokenizer of a model when it is asked for first."""
    return cache(lambda: Reader(load_tokenizer(folder), system_prompt))


def decision(reading: Reading) -> tuple[str, str]:
    """Digests of what decides how much its model reads at once, and of what decides which rows are too long."""
    versions = [installed_version(name) for name in ("transformers", "tokenizers")]
    content, *others = reading.decided_by
    model = digest_json([COUNTED, versions, content])
    return model, digest_json([model, reading.key, reading.share, others])


def trained_tokens(reader: Reader, texts: Texts, *, both: bool) -> int:
    """Of a row that is trained on: prompt, answer and end token. both: whether the answer that came with it is
    rejected, so that the longer one of the two counts."""
    answers = [texts.answer, *([texts.rejected] if both and texts.rejected else [])]
    longest = max(map(len, reader.tokenizer(answers, add_special_tokens=False)["input_ids"]))
    return len(encode(reader, texts.prompt)) + longest + 1


def graded_tokens(reader: Reader, texts: Texts, rubric: str) -> int:
    """Of what a grader reads of a row with an empty answer."""
    row = Row(texts.prompt, "", texts.answer, tuple(json.loads(texts.also or "[]")))
    return len(encode(reader, build_prompt(row, rubric).text))

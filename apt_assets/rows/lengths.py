"""How long landed rows are in tokens of the policy, nearly and without transformers: a plan's memory depends on it."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from apt_assets.landing.folder import LandingFolder
from resources.store.digest import digest_json
from resources.store.kinds import installed_version

COUNTED = 1  # raised when rows are counted otherwise, so that files are looked at again
ROWS = 50_000  # of a file; more of the same file are as long
SAMPLE = 64  # texts whose tokens are counted; of others they follow from their bytes
STEP = 16  # tokens
USUAL = 0.3  # tokens a byte, of a tokenizer that the library `tokenizers` does not read
TEMPLATE = 16  # tokens that a chat template writes around a question


@dataclass(frozen=True)
class Lengths:
    """prompts: how many questions there are of so many tokens, rounded up to STEP, as they are asked. longest: tokens
    of the prompt and the answer of the row that has most."""

    prompts: dict[int, int]
    longest: tuple[int, int]


def lengths_of(landing: LandingFolder, model: Path, system_prompt: str | None) -> Lengths:
    """Of all landed files; a file is looked at once for its content and tokenizer."""
    tokenizer = model / "tokenizer.json"
    digest = landing.digests.file(tokenizer) if tokenizer.is_file() else ""
    key = digest_json([COUNTED, digest, installed_version("tokenizers"), landing.reader()])

    def look(path: Path) -> str:
        return json.dumps(look_at(path, counter(tokenizer)))

    found = [json.loads(landing.derived(name, f"lengths {key}", look)) for name in landing.names()]
    around = TEMPLATE + (counter(tokenizer)([system_prompt])[0] if system_prompt else 0)
    prompts: Counter[int] = Counter()
    for counts, _ in found:
        prompts.update({int(length) + around: count for length, count in counts.items()})
    prompt, answer = max((longest for _, longest in found), key=sum, default=(0, 0))
    return Lengths(dict(prompts), (prompt + around, answer))


def counter(tokenizer: Path) -> Callable[[Sequence[str]], list[int]]:
    """Counts the tokens of texts."""
    if not tokenizer.is_file():
        return lambda texts: [int(USUAL * len(text.encode())) + 1 for text in texts]
    from tokenizers import Tokenizer

    from resources.model.control_tokens import without_merge_dropout

    reader = Tokenizer.from_file(str(tokenizer))
    reader.no_truncation()
    reader.no_padding()
    without_merge_dropout(reader)
    return lambda texts: [len(found.ids) for found in reader.encode_batch(list(texts), add_special_tokens=False)]


def look_at(path: Path, count: Callable[[Sequence[str]], list[int]]) -> tuple[dict[int, int], tuple[int, int]]:
    """(prompts by length, the longest row) of a landed file; see Lengths, without what is written around a prompt."""
    import polars as pl

    from apt_assets.landing.records import read_landed

    prompts: Counter[int] = Counter()
    longest, rows, a_byte = ("", ""), 0, 0.0
    for part in read_landed(path):
        texts = part.texts.select("prompt", "answer")
        if texts.is_empty():
            continue
        if not rows:
            sample = texts["prompt"].gather_every(max(texts.height // SAMPLE, 1)).to_list()
            a_byte = sum(count(sample)) / max(sum(len(text.encode()) for text in sample), 1)
        sizes = texts.select(
            prompt=(pl.col("prompt").str.len_bytes() * a_byte / STEP).ceil().cast(pl.Int64) * STEP,
            both=pl.sum_horizontal(pl.all().str.len_bytes()),
        )
        prompts.update(dict(sizes["prompt"].value_counts().iter_rows()))
        prompt, answer = texts.row(int(sizes["both"].arg_max() or 0))
        longest = max(longest, (prompt, answer), key=lambda row: len(row[0].encode()) + len(row[1].encode()))
        rows += texts.height
        if rows >= ROWS:
            break
    tokens = count(longest)
    return dict(prompts), (tokens[0], tokens[1])

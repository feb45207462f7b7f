"""Which texts hold something of what a policy is later measured by: of held-out rows, or of the general benchmark.

Words are compared after normalisation (method/splits.py). A text holds a measured one if RUN words of it follow each
other in the text as well; of a shorter one, all of them.
"""

from collections.abc import Iterable, Iterator, Sequence

import polars as pl

from apt_assets.method.splits import normalised

RUN = 8  # words; GPT-3's filter took 13 of a longer text (Brown et al. 2020, appendix C), a question is shorter
SHORTEST = 4  # words


def held(texts: Sequence[str], measured: Iterable[str]) -> dict[int, str]:
    """Position of a text -> the first run of words that it shares with a measured one."""
    protected = {run for words in words_of(measured) if len(words) >= SHORTEST for run in runs(words)}
    lengths = sorted({len(run) for run in protected}, reverse=True)
    found = {}
    for place, words in enumerate(words_of(texts)):
        shared = (run for length in lengths for run in runs(words, length) if run in protected)
        if (run := next(shared, None)) is not None:
            found[place] = " ".join(run)
    return found


def runs(words: list[str], length: int = RUN) -> Iterator[tuple[str, ...]]:
    """All runs of that many words; of fewer words, all of them."""
    length = min(length, len(words))
    return (tuple(words[start : start + length]) for start in range(len(words) - length + 1))


def words_of(texts: Iterable[str]) -> list[list[str]]:
    return [text.split() for text in normalised(pl.Series(list(texts), dtype=pl.String))]

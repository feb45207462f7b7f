"""Near duplicates: a training question that is a held-out one but for a word, and has its answer.

Two questions are near if their letters and digits are the same, wherever the spaces are, or if their
normalised words become the same by one word put in place of another, inserted or left out. One word of a
short question is the question itself ("left femur", "right femur"), so the second counts only from a number
of words on. With another answer it is another question: nothing of the held-out answer is in it.

All near pairs of a million rows are found by signatures: a hash of a question with one word masked, or left
out, equals that of another question exactly if these differ in that word only (symmetric deletion, as in
W. Garbe's SymSpell). What has a signature in common is then compared word by word, so the hash decides
nothing: none leaves by a collision, and it may be another one in another version of polars.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from apt_assets.method.splits import normalised
from resources.assessors.terms import terms

# Signatures (uint64; all arithmetic on them is modulo 2**64) and, beside each, the position of its row.
Asked = tuple[np.ndarray, np.ndarray]
BASE, WILDCARD, ANSWER = 0x9E3779B97F4A7C15, 0xD1342543DE82EF95, 0xA0761D6478BD642F  # odd, otherwise arbitrary
INVERSE = pow(BASE, -1, 2**64)
BLOCK = 50_000  # rows whose signatures are in memory at a time


def near_held_out(train: pl.DataFrame, held_out: pl.DataFrame, shortest: int) -> dict[int, int]:
    """Position in `train` -> that of the first row in `held_out` that it is near to; both hold prompt and answer.

    shortest: the fewest words, of both questions, from which on one of them may differ.
    """
    if train.is_empty() or held_out.is_empty():
        return {}
    known = HeldOut(held_out, shortest)
    found: dict[int, int] = {}
    for start, block in blocks(train):
        found |= {start + row: other for row, other in known.first_near(Signatures.of(block, shortest))}
    pairs = train["prompt"][list(found)], held_out["prompt"][list(found.values())]
    texts = zip(*(normalised(prompts) for prompts in pairs), strict=True)
    return {row: found[row] for row, (a, b) in zip(list(found), texts, strict=True) if near(a, b, shortest)}


def near(a: str, b: str, shortest: int) -> bool:
    """Whether two normalised questions are near to each other."""
    if a.replace(" ", "") == b.replace(" ", ""):
        return True
    one, other = sorted((a.split(), b.split()), key=len)
    if len(one) < shortest or len(other) - len(one) > 1:
        return False
    same = next((n for n, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), len(one))
    return one[same + (len(one) == len(other)) :] == other[same + 1 :]


def compared(answers: pl.Series) -> pl.Series:
    """Answers as they are compared: by their terms, so that C++ and C# are two."""
    normal = normalised(answers)
    # Where there is nothing but plain sentences, their words are the terms.
    others = answers.str.contains(r'[^A-Za-z0-9\s.,;:!?()"]|[.!][A-Za-z0-9]|[0-9][,:][0-9]').arg_true()
    distinct = answers[others].unique()
    forms = [" ".join(terms(text)) or text for text in distinct]
    return normal.scatter(others, answers[others].replace_strict(distinct, forms, return_dtype=pl.String))


def blocks(rows: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    """(position of its first row, at most BLOCK rows)."""
    return ((start, rows.slice(start, BLOCK)) for start in range(0, rows.height, BLOCK))


@dataclass(frozen=True)
class Signatures:
    """Signatures of some rows. The answer is part of all of them.

    closed: the text without spaces. whole: all words. masked: all words, one of them hidden, for each of them.
    left_out: all words but one, for each of them. Questions with too few words have the first alone.
    """

    closed: Asked
    whole: Asked
    masked: Asked
    left_out: Asked

    @classmethod
    def of(cls, rows: pl.DataFrame, shortest: int) -> "Signatures":
        texts = normalised(rows["prompt"])
        answers = compared(rows["answer"]).hash().to_numpy() * np.uint64(ANSWER)
        some = (texts != "").arg_true().to_numpy()
        # Another seed than that of the words: a text of one word is not its own signature.
        closed = texts.str.replace_all(" ", "", literal=True).hash(1).to_numpy() + answers

        words = texts.str.split(" ")
        long = (words.list.len() >= shortest).arg_true()
        words, row, answers = words[long], long.to_numpy(), answers[long.to_numpy()]
        counts = words.list.len().to_numpy().astype(np.int64)
        first = np.cumsum(counts) - counts
        hashes = words.explode(empty_as_null=False).hash().to_numpy()

        def of_word(values: np.ndarray) -> np.ndarray:
            return np.repeat(values, counts)

        # A polynomial in BASE: word n of a question counts BASE**n times.
        place = np.arange(len(hashes)) - of_word(first)
        powers = np.cumprod(np.full(counts.max(initial=0) + 1, BASE, np.uint64)) * np.uint64(INVERSE)
        terms = hashes * powers[place]
        sums = np.cumsum(terms)
        sums -= of_word(sums[first] - terms[first])
        whole = sums[first + counts - 1]
        rest = of_word(whole) - sums  # of the words after this one, which move up by one place if it is left out
        masked = of_word(whole) - terms + powers[place] * np.uint64(WILDCARD) + of_word(answers)
        left_out = sums - terms + rest * np.uint64(INVERSE) + of_word(answers)
        return cls((closed[some], some), (whole + answers, row), (masked, of_word(row)), (left_out, of_word(row)))


class Known:
    """Signatures of held-out rows, each once, and of each the first row that has it."""

    def __init__(self, parts: list[Asked]):
        signatures, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.lexsort((rows, signatures))
        self.signatures, at = np.unique(signatures[order], return_index=True)
        self.rows = rows[order][at]
        # Whether a signature begins with these bits: most that are asked for are not known, and so told at once.
        self.begins = np.zeros(2**24, dtype=bool)
        self.begins[self.signatures >> np.uint64(40)] = True

    def hits(self, asked: Asked) -> Asked:
        """(the known row, the row that has a signature in common with it)."""
        signatures, rows = asked
        likely = np.flatnonzero(self.begins[signatures >> np.uint64(40)])
        at = np.searchsorted(self.signatures, signatures[likely])
        at[at == len(self.signatures)] = 0
        hit = self.signatures[at] == signatures[likely]
        return self.rows[at[hit]], rows[likely[hit]]


class HeldOut:
    """What held-out rows are found by. alike: by questions with one word in place of another, or one more.
    longer: by those with one word less."""

    def __init__(self, rows: pl.DataFrame, shortest: int):
        alike, longer = [], []
        for start, block in blocks(rows):
            its = Signatures.of(block, shortest)
            alike += [(signatures, start + row) for signatures, row in (its.closed, its.whole, its.masked)]
            longer.append((its.left_out[0], start + its.left_out[1]))
        self.alike, self.longer = Known(alike), Known(longer)

    def first_near(self, its: Signatures) -> Iterator[tuple[int, int]]:
        """(row, the first held-out one that it has a signature in common with)."""
        hits = [self.alike.hits(asked) for asked in (its.closed, its.masked, its.left_out)]
        hits.append(self.longer.hits(its.whole))
        others, rows = (np.concatenate(part) for part in zip(*hits, strict=True))
        order = np.lexsort((others, rows))
        rows, at = np.unique(rows[order], return_index=True)
        return zip(rows.tolist(), others[order][at].tolist(), strict=True)

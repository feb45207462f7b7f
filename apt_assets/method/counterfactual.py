"""Plausible wrong answers to questions that the policy answers right, so that these have something to reject.

A gold is changed as little as makes it wrong, in the way in which answers of its kind go wrong: another label,
another number or unit, another item of the list, another row's gold. So the pair differs in what decides and
not in form: a hard negative, as in contrast sets (Gardner et al. 2020, arXiv 2004.02709). Whether it is wrong
the assessor says, as of any answer (`first_wrong`). What is in `also` is right as well as the gold.

What is chosen "by hash" is chosen on a ring: of texts in the order of their hashes, those behind the row's own.
So one text more or less changes the choice of few rows (consistent hashing, Karger et al. 1997).
"""

import hashlib
import re
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import polars as pl

from apt_assets.method.golds import is_gold
from apt_assets.method.grades import is_bad
from resources.assessors.items import HEADING
from resources.assessors.labels import normalise_answer
from resources.assessors.numerals import as_decimal, separators
from resources.assessors.numeric import NUMBER, Unit, in_plain_form, known, quantities, quantity_of, read_unit

TRIES = 4  # wrong answers that a row tries, at most
Ring = list[tuple[str, str]]  # (hash, text), sorted


def first_wrong(
    rows: pl.DataFrame,
    propose: Callable[[pl.DataFrame, int], list[str | None]],
    grade: Callable[[pl.DataFrame], list[int | None]],
    bad_below: int,
) -> pl.DataFrame:
    """Examples -> (row_id, rejected, grade): of what is proposed for a row, the first that is graded below `bad_below`
    and is none of its right answers. A row for which nothing is, is not there.

    propose: (rows, try) -> an answer to each, or None if there is no more. grade: (rows with `rejected`) -> grades.
    """
    found = [pl.DataFrame(schema={"row_id": pl.String, "rejected": pl.String, "grade": pl.Int8})]
    for attempt in range(TRIES):
        proposed = pl.Series("rejected", propose(rows, attempt), dtype=pl.String)
        rows = rows.with_columns(proposed).drop_nulls("rejected")
        if rows.is_empty():
            break
        graded = rows.with_columns(pl.Series("grade", grade(rows), dtype=pl.Int8))
        wrong = is_bad(pl.col("grade"), bad_below) & ~is_gold("rejected")
        found.append(graded.filter(wrong).select("row_id", "rejected", "grade"))
        rows = graded.filter(~wrong).drop("rejected", "grade")
    return pl.concat(found)


# -- by hash -------------------------------------------------------------------------------------------


def ring_of(texts: Iterable[str]) -> Ring:
    return sorted((hashed(text), text) for text in set(texts))


def behind(ring: Ring, key: str) -> Iterator[str]:
    """The ring's texts from the place of `key` on, each once."""
    start = bisect(ring, (hashed(key), ""))
    yield from (text for _, text in ring[start:])
    yield from (text for _, text in ring[:start])


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# -- labels --------------------------------------------------------------------------------------------


def confusions(predictions: pl.DataFrame, labels: Iterable[str], bad_below: int) -> dict[str, list[str]]:
    """Gold, normalised -> the labels that were given for it by mistake, most often first; "": for any gold.

    predictions: graded. labels: normalised, as in LabelMatch.
    """
    closed, counts = set(labels), {"": Counter[str]()}
    wrong = predictions.filter(is_bad(pl.col("grade"), bad_below))
    for gold, said in wrong.select("answer", "prediction").iter_rows():
        if (label := normalise_answer(said)) in closed:
            for of in ("", normalise_answer(gold)):
                counts.setdefault(of, Counter())[label] += 1
    return {of: sorted(its, key=lambda label: (-its[label], label)) for of, its in counts.items()}


def spellings(texts: Iterable[str]) -> dict[str, str]:
    """Normalised answer -> as it is written most often, so that a wrong label looks like a right one."""
    counts = Counter(text.strip() for text in texts)
    ordered = sorted(counts, key=lambda text: (counts[text], text))
    return {normalise_answer(text): text for text in ordered}


def other_labels(
    row_id: str,
    gold: str,
    confused: dict[str, list[str]],
    ring: Ring,
    spelt: dict[str, str],
    also: Sequence[str] = (),
) -> list[str]:
    """Other labels: those that the policy confuses with this gold, those that it gives wrongly at all, any by hash."""
    own, *others = map(normalise_answer, (gold, *also))
    ranked = dict.fromkeys([*confused.get(own, ()), *confused[""], *behind(ring, row_id)])
    return [spelt.get(label, label) for label in ranked if label not in (own, *others)][:TRIES]


# -- numbers -------------------------------------------------------------------------------------------


def units_of(golds: Iterable[str]) -> Ring:
    """The known units of the golds, as they are written there."""
    matches = (NUMBER.search(gold) for gold in set(golds))
    units = (match["unit"] for match in matches if match and match["unit"])
    return ring_of(unit for unit in units if known(unit_of(unit).measure))


def other_numbers(row_id: str, gold: str, units: Ring, also: Sequence[str] = ()) -> list[str]:
    """The gold ten times as large or small, with another first digit, or in another unit: by hash, which of these
    comes first. Units that measure the same come before others."""
    written = list(NUMBER.finditer(gold))
    is_plain = all(match["digits"].isascii() for match in written)
    if not is_plain or [quantity_of(match, kelvin=False) for match in written] != quantities(gold):
        gold = in_plain_form(gold)  # where the assessor reads something else than is written
    match = NUMBER.search(gold)
    if match is None:
        return []
    own = unit_of(match["unit"] or "")
    others = [unit for unit in behind(units, row_id) if unit_of(unit) != own] if known(own.measure) else []
    others.sort(key=lambda unit: unit_of(unit).measure != own.measure)
    dice = int(hashed(row_id), 16)
    places = (1, -1) if dice % 2 else (-1, 1)
    first, last = (("digits", shift_point(match["digits"], by)) for by in places)
    ways = [first, ("digits", other_digit(match["digits"], dice)), *(("unit", unit) for unit in others[:1])]
    turn = dice // 2 % len(ways)
    ways = [*ways[turn:], *ways[:turn], last]
    changed = [gold[: match.start(part)] + text + gold[match.end(part) :] for part, text in ways]
    return [text for text in dict.fromkeys(changed) if text not in (gold, *also)][:TRIES]


def unit_of(written: str) -> Unit:
    return read_unit(written.replace(" ", ""))


def shift_point(digits: str, places: int) -> str:
    """Ten times as large (places 1) or small (-1), in the form of `digits`: 1,500 -> 15,000 or 150; 1.5 -> 15 or 0.15;
    1.234,5 -> 12.345 or 123,45; 1/2 -> 10/2 or 1/20."""
    number = as_decimal(digits)
    if number is None:
        return re.sub(r"\d+", r"\g<0>0", digits, count=1) if places > 0 else f"{digits}0"
    group, point = separators(digits)
    text = f"{number.scaleb(places):{',' if group else ''}f}"
    if not point:
        text = text.removesuffix(".0")
        point = "," if group in (".", " ") else "."
    return "".join({",": group, ".": point}.get(sign, sign) for sign in text)


def other_digit(digits: str, dice: int) -> str:
    """Another digit from 1 to 9 in the place of the first one that is not 0."""
    found = re.search(r"[1-9]", digits) or re.search(r"\d", digits)
    assert found is not None, "NUMBER matches digits"
    others = [digit for digit in "123456789" if digit != found[0]]
    return digits[: found.start()] + others[dice // 7 % len(others)] + digits[found.end() :]


# -- lists ---------------------------------------------------------------------------------------------


def items_of(golds: Iterable[str], separator: str) -> dict[str | None, Ring]:
    """Field -> items with it that occur in the golds; None: all items. Field: what stands before a colon, or ""."""
    fields: dict[str | None, set[str]] = {None: set()}
    for gold in set(golds):
        for start, end in item_spans(gold, separator):
            item = gold[start:end]
            for field in (None, field_of(item)):
                fields.setdefault(field, set()).add(item)
    return {field: ring_of(items) for field, items in fields.items()}


def other_items(
    row_id: str, gold: str, items: dict[str | None, Ring], separator: str, also: Sequence[str] = ()
) -> list[str]:
    """The list with one item replaced by one of another list, then with two, four and eight: of a long list, one
    item may be wrong and the whole still good. The same field with another value if there is one."""
    spans = item_spans(gold, separator)
    taken = {normalise_answer(one[start:end]) for one in (gold, *also) for start, end in item_spans(one, separator)}
    new: dict[tuple[int, int], str] = {}
    for start, end in sorted(spans, key=lambda span: hashed(f"{row_id}:{span[0]}"))[: 2 ** (TRIES - 1)]:
        rings = [items.get(field_of(gold[start:end]), []), items[None]]
        fitting = (item for ring in rings for item in behind(ring, row_id) if normalise_answer(item) not in taken)
        if (item := next(fitting, None)) is not None:
            new[start, end] = item
            taken.add(normalise_answer(item))
    counts = [count for count in (2**attempt for attempt in range(TRIES)) if count < 2 * len(new)]
    return [with_replaced(gold, dict(islice(new.items(), count))) for count in counts]


def with_replaced(text: str, new: dict[tuple[int, int], str]) -> str:
    for (start, end), item in sorted(new.items(), reverse=True):
        text = text[:start] + item + text[end:]
    return text


def item_spans(text: str, separator: str) -> list[tuple[int, int]]:
    """Where the items stand, without what leads and ends them; as SetF1 reads them, headings left out."""
    between = [match.span() for match in re.finditer(separator, text)]
    starts, ends = [0, *(end for _, end in between)], [*(start for start, _ in between), len(text)]
    found = []
    for start, end in zip(starts, ends, strict=True):
        part = text[start:end].rstrip(". \t\r\n")
        item = re.sub(r"^(?:\s|[-*]+(?=\s))*", "", part)
        if item.strip("-*. ") and not item.endswith(HEADING):
            found.append((start + len(part) - len(item), start + len(part)))
    return found


def field_of(item: str) -> str:
    before, colon, _ = item.partition(":")
    return normalise_answer(before) if colon else ""


# -- texts ---------------------------------------------------------------------------------------------


def by_length(golds: Iterable[str]) -> dict[int, Ring]:
    """Length in characters -> golds of that length."""
    lengths: dict[int, set[str]] = {}
    for gold in golds:
        lengths.setdefault(len(gold), set()).add(gold)
    return {length: ring_of(texts) for length, texts in lengths.items()}


def other_golds(row_id: str, gold: str, lengths: dict[int, Ring], also: Sequence[str] = ()) -> list[str]:
    """Golds of other rows, nearest in length; of one length by hash."""
    own = set(map(normalise_answer, (gold, *also)))
    near = sorted(lengths, key=lambda length: (abs(length - len(gold)), length))
    texts = (text for length in near for text in behind(lengths[length], row_id))
    return list(islice((text for text in texts if normalise_answer(text) not in own), TRIES))

"""Support tickets made up from a seed: a domain whose answers have four fields.

`python -m resources.demo.tickets FILE --rows N --seed S` writes JSON lines {prompt, answer, metadata}:

    Ticket: Our Heron is fine, but my Kesrtel 7 goes dark after ten minutes unless it hangs on the cable, since
        the 3rd of May. No rush at all.
    product: camera; issue: battery; since: 3 May; urgency: low

product  a class of ticket_words.NAMES. Customers write a model name, which mostly has to be known, or a
         nickname.
issue    a key of ticket_words.DOES. Some beginnings are shared by several issues; what follows decides.
since    when the trouble began, as day and month; unknown if the ticket does not tell. Numeric dates are
         day/month; other dates in a ticket are not meant.
urgency  low, medium or high. Medium if nothing is said; high if there was a shock, sparks or smoke, whatever
         else is said.

The first rows of a seed are the same for every N.
"""

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from random import Random

from resources.demo.ticket_words import (
    BRANDS,
    CALLED,
    CALM,
    COUNTS,
    DANGER,
    DATED,
    DOES,
    EVENTS,
    FEASTS,
    FOLLOWS,
    GREETINGS,
    LACKS,
    LEADS,
    MONTHS,
    NAMES,
    NOUNS,
    ORDINALS,
    SHARED,
    URGENCY,
    VERSIONS,
    WEEKDAYS,
)

LONGEST = 190  # characters of a ticket; about 60 tokens
YEAR = 2025  # of weekdays, and of the few dates that have a year


@dataclass(frozen=True)
class When:
    """A day as a customer puts it. form: the way. text: what stands behind "since" or "on" if `plain`, else alone.
    note: which day it is counted from."""

    form: str
    day: date
    text: str
    plain: bool = True
    note: str = ""


def tickets(rows: int, seed: int) -> Iterator[dict]:
    """The first `rows` tickets of a seed; no two of them have the same letters and digits."""
    random = Random(f"tickets {seed}")
    seen: set[str] = set()
    while len(seen) < rows:
        row = ticket(random)
        letters = "".join(filter(str.isalnum, row["prompt"].casefold()))
        if len(row["prompt"]) <= LONGEST and letters not in seen:
            seen.add(letters)
            yield row


def ticket(random: Random) -> dict:
    """One ticket, of any length."""
    issue = random.choice(list(DOES))
    product = random.choice([one for one in NAMES if one not in LACKS[issue].split()])
    it, named = mention(random, product)
    does = trouble(random, product, issue)
    when = start(random) if random.random() < 0.92 else None
    urgency, plea = urgency_of(random)

    other = random.choice([one for one in NAMES if one != product])
    not_meant = {
        "other": random.choice(NAMES[other]),
        "noun": random.choice([NOUNS[one] for one in DOES if one != issue and product not in LACKS[one].split()]),
        "day": written(random, any_day(random))[1],
    }
    lead, follow = (part.format(**not_meant) for part in distraction(random))
    sloppy = random.choice((0.0, 0.0, 0.06, 0.15))
    lead, does, follow, plea = (with_slips(random, part, sloppy) for part in (lead, does, follow, plea))
    sentences = [complaint(random, lead, it, does, when), follow, plea]
    if not lead and random.random() < 0.2:
        sentences = [plea, sentences[0], follow]
    if random.random() < 0.1:
        sentences.insert(0, random.choice(GREETINGS))
    text = " ".join(filter(None, sentences)).replace("..", ".")  # some dates end with a stop
    if random.random() < 0.15:
        text = text.lower()
    since = day_month(when.day) if when else "unknown"
    fields = {"product": product, "issue": issue, "since": since, "urgency": urgency}
    return {
        "prompt": f"Ticket: {text}",
        "answer": "; ".join(f"{key}: {value}" for key, value in fields.items()),
        "metadata": {"named": named, "date": when.form if when else "none", "distracted": bool(lead or follow)},
    }


def mention(random: Random, product: str) -> tuple[str, str]:
    """(what stands for the product in a sentence, the model name or "" if it is not named)."""
    if random.random() < 0.45:
        return random.choice(CALLED[product]), ""
    names = NAMES[product]
    named = random.choices(names, [rank**-1.5 for rank in range(1, len(names) + 1)])[0]
    text = slip(random, named) if random.random() < 0.25 else named
    if random.random() < 0.2:
        text = f"{random.choice(BRANDS)} {text}"
    if random.random() < 0.3:
        text = f"{text} {random.choice(VERSIONS)}"
    if random.random() < 0.3:
        text = f"{text} {product}"
    return f"{random.choice(('my', 'our', 'the', 'this'))} {text}", named


def trouble(random: Random, product: str, issue: str) -> str:
    """What the product does, as the rest of a sentence that begins with it."""
    shared = [beginning for beginning, issues in SHARED.items() if issue in issues]
    if shared and random.random() < 0.4:
        beginning = random.choice(shared)
        return f"{beginning} {random.choice(SHARED[beginning][issue])}"
    return random.choice([text for group, texts in DOES[issue].items() if fits(product, group) for text in texts])


def fits(product: str, group: str) -> bool:
    """Whether a group of phrases is for this product: "" for all, "-x" for all but x, else for those it lists."""
    return product != group[1:] if group.startswith("-") else not group or product in group.split()


def urgency_of(random: Random) -> tuple[str, str]:
    """(urgency, the sentence that tells; "" if none does)."""
    if random.random() < 0.1:
        return "high", f"{random.choice(DANGER)}{random.choice(CALM)}."
    if random.random() < 0.15:
        return "medium", ""
    urgency = random.choice(list(URGENCY))
    return urgency, random.choice(URGENCY[urgency])


def distraction(random: Random) -> tuple[str, str]:
    """(what stands before the complaint, what stands behind it), both with fields to fill; at most one is not ""."""
    kind = random.random()
    if kind < 0.25:
        return random.choice(LEADS), ""
    if kind < 0.4:
        return "", random.choice(FOLLOWS)
    return ("", random.choice(DATED)) if kind < 0.6 else ("", "")


def complaint(random: Random, lead: str, it: str, does: str, when: When | None) -> str:
    """The sentence that tells what is wrong and since when."""
    if when is None:
        text = f"{it} {does}"
    elif when.plain:
        day = f"{when.text}{when.note}"
        forms = [f"{it} {does}, since {day}", f"since {day} {it} {does}", f"{it} {does}; it began on {day}"]
        text = random.choice([*forms, f"on {day} I first saw that {it} {does}"])
    else:
        day = f"{when.text}{when.note}"
        forms = [f"{it} {does}; it began {day}", f"{day} I first saw that {it} {does}"]
        text = random.choice([*forms, f"it began {day}: {it} {does}"])
    text = f"{lead} {text}" if lead else text
    return f"{text[0].upper()}{text[1:]}."


def any_day(random: Random) -> date:
    return date(YEAR, 1, 1) + timedelta(days=random.randrange(365))


def day_month(day: date) -> str:
    return f"{day.day} {MONTHS[day.month - 1]}"


def start(random: Random) -> When:
    """When the trouble began, in one of many forms."""
    kind = random.choices(("written", "ago", "weekday", "feast", "month end", "after"), (70, 10, 5, 5, 3, 7))[0]
    day = any_day(random)
    if kind == "feast":
        name, (number, month) = random.choice(list(FEASTS.items()))
        return When(kind, date(YEAR, month, number), name)
    if kind == "month end":
        # Not of February: no year is told.
        last = random.choice([month for month in range(1, 13) if month != 2])
        day = date(YEAR, last, 1) + timedelta(days=31)
        day -= timedelta(days=day.day)
        return When(kind, day, f"the last day of {MONTHS[last - 1]}")
    if kind == "written":
        form, text = written(random, day)
        return When(form, day, text)
    # How far it is from February into March depends on the year, and none is told.
    while date(YEAR, 2, 1) <= day <= date(YEAR, 3, 3):
        day = any_day(random)
    return counted(random, kind, day)


def written(random: Random, day: date) -> tuple[str, str]:
    """(form, text) of a day that is written out."""
    month = MONTHS[day.month - 1]
    number, n = f"{day.day}{suffix(day.day)}", day.day
    forms = {
        "long": (f"{n} {month}", f"{month} {n}", f"{number} {month}", f"the {number} of {month}", f"{month} {number}"),
        "short": (f"{n} {month[:3]}", f"{month[:3]} {n}", f"{number} {month[:3]}"),
        "numeric": (f"{n:02}/{day.month:02}", f"{n}/{day.month}", f"{n:02}.{day.month:02}.", day.isoformat()),
        "words": (f"the {ORDINALS[n - 1]} of {month}",),
    }
    form = random.choices(list(forms), (4, 2, 4, 1))[0]
    return form, random.choice(forms[form])


def suffix(number: int) -> str:
    return "th" if number in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def counted(random: Random, kind: str, day: date) -> When:
    """A day that has to be reckoned from another one."""
    if kind == "after":
        days = random.choice((1, 1, 2, 3))
        before = "the day" if days == 1 else f"{COUNTS[days - 2]} days"
        text = f"{before} after {random.choice(EVENTS)} of {day_month(day - timedelta(days=days))}"
        return When(kind, day, text, plain=False)
    days = random.randint(1, 6) if kind == "weekday" else random.choice((0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14))
    today = day + timedelta(days=days)
    if kind == "weekday":
        note = f" (today is {WEEKDAYS[today.weekday()]}, {day_month(today)})"
        return When(kind, day, WEEKDAYS[day.weekday()], note=note)
    named = {0: ("today",), 1: ("yesterday",), 2: ("two days ago", "the day before yesterday")}
    named |= {7: ("a week ago", "seven days ago"), 14: ("two weeks ago", "a fortnight ago")}
    text = random.choice(named.get(days) or (f"{COUNTS[days - 2]} days ago",))
    return When(kind, day, text, plain=False, note=f" (today is {written(random, today)[1]})")


def with_slips(random: Random, text: str, share: float) -> str:
    """The text with this share of its long words mistyped: a slip in a short one may make another word of it."""
    return re.sub(r"[A-Za-z]{5,}", lambda word: slip(random, word[0]) if random.random() < share else word[0], text)


def slip(random: Random, word: str) -> str:
    return random.choice(slips(word))


def slips(word: str) -> list[str]:
    """What becomes of a word by one slip behind its first letter: a letter left out, doubled, or swapped."""
    inner = range(1, len(word) - 1)
    without = [word[:n] + word[n + 1 :] for n in inner]
    doubled = [word[:n] + word[n] + word[n:] for n in inner]
    swapped = [word[:n] + word[n + 1] + word[n] + word[n + 2 :] for n in inner if word[n] != word[n + 1]]
    return without + doubled + swapped


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m resources.demo.tickets", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in tickets(asked.rows, asked.seed))
    asked.file.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()

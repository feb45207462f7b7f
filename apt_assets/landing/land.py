"""Landing: check the rows of files and copy them into the landing folder, as they are."""

import os
import shutil
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apt_assets.landing.dataset_folder import write_parquet
from apt_assets.landing.folder import UNSHOWN
from apt_assets.landing.names import is_corrections
from apt_assets.landing.opening import check_encoding, recode
from apt_assets.landing.readers import PACKED, READERS, format_of, suffixes_of
from apt_assets.landing.records import Contents, Reject, contents_of
from apt_assets.landing.taken_for import first_rows, hints, taken_for
from apt_assets.settings.experiment import UsageError

LONGEST_NAME = 150  # bytes of it, as UTF-8; with digest, suffix and what a half-written file has, most allow 255


def land_files(
    paths: list[Path], folder: Path, encoding: str | None = None, *, dry_run: bool = False
) -> list[dict[str, Any]]:
    """Land each file or data set folder.

    Returns [{file, good, bad: [Reject as a dict], landed: name or None, hints: [lines for people]}]; of a dry run,
    which lands nothing, also {taken_for: what `taken_for` gives, rows: three of them as they would land}.

    A landed file carries the digest of its rows in its name, so that landing never overwrites and the
    same rows twice, in whatever order, are landed once. A folder lands as one Parquet file, of a symbolic
    link what it leads to, and a file of an `encoding` unpacked and as UTF-8. Raises UsageError for what is missing, no
    file or folder, of an unknown format or not of that encoding, before anything is landed.
    """
    for path in paths:
        check(path, encoding)
    with tempfile.TemporaryDirectory() as made:
        files = [file_of(path, Path(made) / str(number), encoding) for number, path in enumerate(paths)]
        if not dry_run:
            folder.mkdir(parents=True, exist_ok=True)
        names = [os.fsencode(path).decode("utf-8", "backslashreplace") for path in paths]
        return [
            {"file": name, **land_file(file, folder, dry_run=dry_run)} for name, file in zip(names, files, strict=True)
        ]


def check(path: Path, encoding: str | None) -> None:
    """Raise UsageError if it cannot be landed, whatever is in it."""
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if not path.is_file() and not path.is_dir():
        raise UsageError(f"{path}: is a pipe or a device; write what comes of it to a file, and land that")
    if is_corrections(path.name):
        raise UsageError(f"{path}: holds decisions of a review: `apt-assets review --import {path}` takes them over")
    if path.is_file() and not format_of(path.name):
        known = f"{', '.join(READERS)}, or one of these packed ({', '.join(PACKED)})"
        raise UsageError(f"{path}: unknown format {suffixes_of(path.name)!r}; use one of {known}")
    if encoding is not None:
        if path.is_dir() or format_of(path.name) == ".parquet":
            raise UsageError(f"{path}: Parquet says itself how its text is encoded; land it without --encoding")
        try:
            check_encoding(encoding)
        except ValueError as error:
            raise UsageError(f"--encoding: {error}") from None


def file_of(path: Path, made: Path, encoding: str | None) -> Path:
    """The file that lands: the one given, or one that is made in the folder `made`. Raises UsageError."""
    if path.is_dir():
        made.mkdir()
        write_parquet(path, made / f"{path.resolve().name}.parquet")
        return made / f"{path.resolve().name}.parquet"
    if encoding is None:
        return path
    made.mkdir()
    target = made / f"{stem_of(path)[:LONGEST_NAME]}{format_of(path.name)}"
    try:
        recode(path, encoding, target)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    return target


def land_file(path: Path, folder: Path, *, dry_run: bool) -> dict[str, Any]:
    try:
        found = contents_of(path)
    except OSError as error:
        reason = f"this machine failed to read it: {error.strerror}; nothing is wrong with the file"
        return {"good": 0, "bad": [asdict(Reject(path.name, 0, None, reason, ""))], "landed": None, "hints": []}
    report = {
        "good": found.rows,
        "bad": [asdict(bad) for bad in found.rejects],
        "landed": None,
        "hints": hints(path, found),
    }
    if dry_run:
        return {**report, "taken_for": taken_for(path), "rows": first_rows(path)}
    if found.rows:
        landed = name_for(path, found, folder)
        if (folder / landed).is_symlink() or not (folder / landed).exists():
            # The sensor and the planner see a whole file or none.
            temporary = folder / f".{landed}.{os.getpid()}.{threading.get_ident()}.partial"  # two may land it at once
            temporary.unlink(missing_ok=True)  # a link there would be written through
            try:
                shutil.copyfile(path, temporary)
                temporary.replace(folder / landed)
            except BaseException:
                temporary.unlink(missing_ok=True)  # a full disk, Ctrl-C
                raise
        report["landed"] = landed
    return report


def name_for(path: Path, found: Contents, folder: Path) -> str:
    """What a file is called in the landing folder: by what it says. A file of that name that says something else, since
    somebody edited it or it is damaged, stays, and this one gets a longer name."""
    name = ""
    for digits in (8, 16, 64):
        name = f"{plain_name(stem_of(path))}-{found.digest[:digits]}{suffixes_of(path.name).lower()}"
        there = folder / name
        if there.is_symlink() or not there.exists() or contents_of(there).digest == found.digest:
            break
    return name


def stem_of(path: Path) -> str:
    return path.name.removesuffix(suffixes_of(path.name))


def plain_name(stem: str) -> str:
    """A file's name as one that the landing folder shows, and that no shell takes for an option."""
    name = UNSHOWN.sub("_", stem).lstrip(".-")
    return name.encode()[:LONGEST_NAME].decode(errors="ignore") or "data"

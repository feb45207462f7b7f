"""Landing: check the rows of files and copy them, unchanged, into the landing folder."""

import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apt_assets.landing.dataset_folder import write_parquet
from apt_assets.landing.folder import UNSHOWN
from apt_assets.landing.readers import READERS
from apt_assets.landing.records import contents_of
from apt_assets.settings.experiment import UsageError

LONGEST_NAME = 150  # bytes of it, as UTF-8; with digest, suffix and what a half-written file has, most allow 255


def land_files(paths: list[Path], folder: Path) -> list[dict[str, Any]]:
    """Land each file or data set folder; returns [{file, good, bad: [Reject as a dict], hints: what to know of good
    rows, landed: name or None}].

    A landed file carries the digest of its rows in its name, so that landing never overwrites and the
    same rows twice, in whatever order, are landed once. A folder lands as one Parquet file, and of a symbolic
    link what it leads to. Raises UsageError for what is missing, no file or folder, or of an unknown format, before
    anything is landed.
    """
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        if not path.is_file() and not path.is_dir():
            raise UsageError(f"{path}: is a pipe or a device; write what comes of it to a file, and land that")
        if path.is_file() and path.suffix not in READERS:
            raise UsageError(f"{path}: unknown format {path.suffix!r}; use one of {', '.join(READERS)}")
    with tempfile.TemporaryDirectory() as made:
        files = []
        for number, path in enumerate(paths):
            files.append(path)
            if path.is_dir():
                files[-1] = Path(made) / str(number) / f"{path.resolve().name}.parquet"
                files[-1].parent.mkdir()
                write_parquet(path, files[-1])
        folder.mkdir(parents=True, exist_ok=True)
        names = [os.fsencode(path).decode("utf-8", "backslashreplace") for path in paths]
        return [{"file": name, **land_file(file, folder)} for name, file in zip(names, files, strict=True)]


def land_file(path: Path, folder: Path) -> dict[str, Any]:
    found = contents_of(path)
    landed = None
    if found.rows:
        landed = f"{plain_name(path.stem)}-{found.digest[:8]}{path.suffix}"
        if (folder / landed).is_symlink() or not (folder / landed).exists():
            # The sensor and the planner see a whole file or none.
            temporary = folder / f".{landed}.partial"
            temporary.unlink(missing_ok=True)  # a link there would be written through
            try:
                shutil.copyfile(path, temporary)
                temporary.replace(folder / landed)
            except BaseException:
                temporary.unlink(missing_ok=True)  # a full disk, Ctrl-C
                raise
    bad = [asdict(bad) for bad in found.rejects]
    return {"good": found.rows, "bad": bad, "hints": found.remarks, "landed": landed}


def plain_name(stem: str) -> str:
    """A file's name as one that the landing folder shows, and that no shell takes for an option."""
    name = UNSHOWN.sub("_", stem).lstrip(".-")
    return name.encode()[:LONGEST_NAME].decode(errors="ignore") or "data"

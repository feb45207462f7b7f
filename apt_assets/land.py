"""Landing: check the rows of files and copy them, unchanged, into the landing folder."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apt_assets.experiment import UsageError
from apt_assets.method.landing import contents_of
from apt_assets.project import LANDING_FORMATS


def land_files(files: list[Path], folder: Path) -> list[dict[str, Any]]:
    """Land each file; returns [{file, good, bad: [Reject as a dict], landed: name or None}].

    A landed file carries the digest of its rows in its name, so that landing never overwrites and the
    same rows twice, in whatever order, are landed once. Raises UsageError for a missing file or an unknown format,
    before anything is landed.
    """
    for path in files:
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
        if path.suffix not in LANDING_FORMATS:
            raise UsageError(f"{path}: unknown format {path.suffix!r}; use one of {', '.join(LANDING_FORMATS)}")
    folder.mkdir(parents=True, exist_ok=True)
    return [land_file(path, folder) for path in files]


def land_file(path: Path, folder: Path) -> dict[str, Any]:
    found = contents_of(path)
    landed = None
    if found.rows:
        landed = f"{path.stem}-{found.digest[:8]}{path.suffix}"
        if not (folder / landed).exists():
            # The sensor and the planner see a whole file or none.
            temporary = folder / f".{landed}.partial"
            shutil.copyfile(path, temporary)
            temporary.replace(folder / landed)
    return {"file": str(path), "good": found.rows, "bad": [asdict(bad) for bad in found.rejects], "landed": landed}

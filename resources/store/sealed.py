"""JSON files that carry a digest of what they say and of what they are about.

A bit that flipped, a field that was edited, a file that was cut short and one that was copied to another
place all read as Damaged. Writing is atomic: a reader sees the old or the new content.
"""

import errno
import json
from pathlib import Path
from typing import Any

from resources.store.digest import digest_json, write_atomically

CHECK = "check"
NO_WRITING = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


class Damaged(ValueError):
    """A file is not what was written; the message names it and says how."""


def seal(about: str, content: dict[str, Any]) -> str:
    """The text of a sealed file. about: what it is of, such as its place in the store."""
    return json.dumps({**content, CHECK: check_of(about, content)}, indent=1, ensure_ascii=False)


def write_sealed(path: Path, about: str, content: dict[str, Any]) -> None:
    """Write `content` to `path`, sealed; see `seal`."""
    write_atomically(path, seal(about, content))


def remember(path: Path, content: dict[str, Any]) -> None:
    """`write_sealed` for what is only worked out again if it is not there: where nothing can be written, or no room is
    left, it is left out. Raises OSError for a place that can hold no file."""
    try:
        write_sealed(path, path.name, content)
    except OSError as error:
        if error.errno not in NO_WRITING:
            raise


def read_sealed(path: Path, about: str) -> dict[str, Any]:
    """What `write_sealed` wrote. Raises OSError if there is no file, Damaged if it is not that content."""
    return unseal(path.read_bytes(), about, str(path))


def unseal(sealed: bytes, about: str, where: str, *, check_since: int = 0) -> dict[str, Any]:
    """What was sealed. Raises Damaged, which names `where` the bytes are from, if they are not that content.

    check_since: files of a lower `version` (none counts as 1) had no check, and are taken as they are.
    """
    try:
        found = json.loads(sealed)
        content = {key: value for key, value in found.items() if key != CHECK}
        unchecked = CHECK not in found and content.get("version", 1) < check_since
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise Damaged(f"{where}: not the JSON that was written ({error})") from None
    if not unchecked and found.get(CHECK) != check_of(about, content):
        raise Damaged(f"{where}: does not match its check")
    return content


def check_of(about: str, content: dict[str, Any]) -> str:
    return digest_json([about, content])

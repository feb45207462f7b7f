"""Names of landed files that hold decisions and not rows (apt_assets/landing/corrections.py)."""

import re
from datetime import UTC, datetime

# `land` puts a digest behind a name, so that no file of rows comes to be called so.
CORRECTIONS = re.compile(r"corrections-\d{8}T\d{6}Z(-\d{1,3})?\.jsonl")


def is_corrections(name: str) -> bool:
    """Whether a landed file of this name holds decisions and not rows."""
    return CORRECTIONS.fullmatch(name) is not None


def new_name(now: datetime, number: int = 1) -> str:
    """The name of a file of corrections that is begun now, the `number`th of this second."""
    return f"corrections-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}{f'-{number}' if number > 1 else ''}.jsonl"

"""The items of a list: what stands between separators."""

import re

HEADING = (":", "：")  # ends one


def texts_of_items(text: str, separator: str) -> list[str]:
    """What stands between matches of a regular expression; neither what is empty nor headings."""
    parts = [part.strip() for part in re.split(separator, text)]
    return [part for part in parts if part.strip("-*. ") and not part.endswith(HEADING)]

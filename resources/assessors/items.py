"""The items of a list: what stands between separators."""

import re

HEADING = (":", "：")  # ends one


def texts_of_items(text: str, separator: str) -> list[str]:
    """What stands between matches of a regular expression; neither what is empty nor headings."""
    ends = [place for found in re.finditer(separator, text) for place in found.span()]
    parts = [text[start:end].strip() for start, end in zip([0, *ends[1::2]], [*ends[::2], len(text)], strict=True)]
    return [part for part in parts if part.strip("-*. ") and not part.endswith(HEADING)]

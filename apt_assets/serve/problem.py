"""What does not work at present, for the two who want to know: whoever asks, and whoever runs the server."""

from collections.abc import Callable


class Problem:
    """what: fixed words for it. tell: gets the whole text once, until it is another one or over.

    text: the whole of it; it may name a path, or hold what somebody wrote. public: what anyone may read of it, the
    fixed words and the kind of error. Both None: there is none.
    """

    def __init__(self, what: str, tell: Callable[[str], None]):
        self.text: str | None = None
        self.public: str | None = None
        self._what, self._tell = what, tell

    def set(self, error: Exception) -> None:
        kind = type(error).__name__
        text, before = f"{self._what}: {kind}: {error}", self.text
        self.text, self.public = text, f"{self._what} ({kind}): the server's own output has the whole of it"
        if text != before:
            self._tell(text)

    def clear(self) -> None:
        self.text = self.public = None

"""Connections to a model server: kept open, for several threads, with the key of whoever asks."""

import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import requests


def key_in(variable: str) -> str | None:
    """The key in an environment variable, without white space around it; None if there is none. Raises
    ValueError for one that no header may hold: http.client would quote it in its error."""
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch(r"[!-~]*", key):
        raise ValueError(f"the key in ${variable} holds white space, or a character that is not ASCII: set it anew")
    return key or None


def without_key(text: str, key: str | None) -> str:
    """The text with *** in place of the key, which servers like to quote."""
    return text.replace(key, "***") if key else text


def open_session(key: str | None, connections: int, retries: Any = 0) -> "requests.Session":
    """key: sent as a bearer token; None: no header, whatever ~/.netrc has for the host. connections: kept
    at a time. retries: urllib3's `Retry`, or how often a connection is tried again."""
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=connections, max_retries=retries))

    def sign(request: Any) -> Any:
        if key:
            request.headers["Authorization"] = f"Bearer {key}"
        return request

    session.auth = sign  # without one, requests would look into ~/.netrc
    return session

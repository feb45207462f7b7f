"""A real browser, where one is installed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any


def lacking() -> str | None:
    """What tests in a browser lack on this machine; None: nothing."""
    if installed() is None:
        return "no Chromium is installed; with one, `pip install -e '.[browser]'` and run this again"
    return None if find_spec("playwright") else "needs the extra browser: pip install -e '.[browser]'"


def installed() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """Chromium, driven by playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=installed(), args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()

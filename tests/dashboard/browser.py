"""Chromium without a screen, as Debian or Playwright has it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.dashboard.stage import Page

#: It speaks with nobody but us, runs as root too, and keeps no process in reserve.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-features=SpareRendererForSitePerProcess",
]
NAMES = ("chromium", "chromium-browser", "google-chrome")


def program() -> str | None:
    """The path of a Chromium on this machine."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, until the end of the block."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (only who has it comes here)

    # Its processes come and go, and are its own to end: the tests' mark isn't on them.
    environment: dict[str, str | float | bool] = {k: v for k, v in os.environ.items() if not k.startswith("WORKERBEE")}
    with sync_playwright() as playwright:
        path = program() or playwright.chromium.executable_path
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS, env=environment, handle_sigint=False)
        try:
            yield browser
        finally:
            browser.close()


def let_in(browser: Browser, page: Page) -> Any:
    """The cookies of a browser that the page has let in."""
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(f"{page.url}/login?token={page.token}")
    tab.wait_for_selector("main#main")
    state = context.storage_state()
    context.close()
    return state


def is_there() -> bool:
    """Whether this machine has Playwright and a Chromium."""
    try:
        import playwright  # noqa: F401, PLC0415
    except ImportError:
        return False
    return program() is not None or any((Path.home() / ".cache/ms-playwright").glob("chromium*"))

"""What the page in a browser takes with ten million jobs in the jobset: ``python -m tests.benchmarks.pages``.

Of each view the time until something is painted, and its bytes with all that it is drawn with; then with twenty tabs
open, the bytes of a tick and what a second of them takes of the server's processor.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import TYPE_CHECKING, Any

import click
import httpx
import psutil
from rich.console import Console

from tests.benchmarks import report
from tests.benchmarks.millions import FAILED, filled, large_server
from tests.benchmarks.results import Bar, at_most
from tests.dashboard import browser
from tests.dashboard.stage import Page, page
from tests.servers import Database

if TYPE_CHECKING:
    from playwright.sync_api import Browser

VIEWS = {
    "jobsets": "",
    "jobset": "jobset/millions",
    "jobset, all its time": "jobset/millions?span=all",
    "jobs": "jobset/millions/jobs",
    "failed jobs": "jobset/millions/jobs?status=failed",
    "waiting jobs": "jobset/millions/jobs?status=waiting",
    "jobs of a host": "jobset/millions/jobs?host=node-3",
    "jobs by input": 'jobset/millions/jobs?input={"temperature":4711}',
    "jobs by a part of it": "jobset/millions/jobs?input=4711",
    "job": f"jobset/millions/job/{FAILED}",
    "bees": "bees",
    "launches": "launches",
}
#: Times that a view is opened, tabs, and seconds for which they are open.
OPENED, TABS, SECONDS = 5, 20, 15


def measure(database: Database) -> Iterator[Bar]:
    """The bars of each view, and of the tabs."""
    with page(database.dsn) as opened, opened.client() as client:
        for name, path in VIEWS.items():
            first = _seconds(client, path)
            yield at_most(f"the first answer of all: {name}", 1e3 * first, 300, " ms")
        for name, n_bytes in _sizes(client):
            yield at_most(f"with all it is drawn with: {name}", n_bytes / 1e3, 60, " kB")
        if browser.is_there():
            for name, seconds in _painted(opened):
                yield at_most(f"first paint: {name}", seconds, 300, " ms")
        ticks = [_packed(client, path, {"X-Fragment": "1"}) for path in VIEWS.values()]
        yield at_most("a tick, the largest", max(ticks) / 1e3, 8, " kB")
        busy = _watched(database, client, ["jobset/millions"])
        yield at_most(f"a second of the database with {TABS} tabs of the jobset", 1e3 * busy, 20, " ms")
        busy = _watched(database, client, list(VIEWS.values()))
        yield at_most(f"the same with tabs of {len(VIEWS)} views, for each", 1e3 * busy / len(VIEWS), 20, " ms")


def _seconds(client: httpx.Client, path: str) -> float:
    began = time.monotonic()
    client.get(f"/{path}").raise_for_status()
    return time.monotonic() - began


def _sizes(client: httpx.Client) -> Iterator[tuple[str, int]]:
    drawn = sum(_packed(client, f"static/{name}") for name in ("page.css", "page.js", "idiomorph.min.js", "icon.svg"))
    for name, path in VIEWS.items():
        yield name, drawn + _packed(client, path)


def _packed(client: httpx.Client, path: str, headers: dict[str, str] | None = None) -> int:
    """Bytes that travel."""
    with client.stream("GET", f"/{path}", headers=headers) as answer:
        return sum(map(len, answer.iter_raw()))


def _painted(opened: Page) -> Iterator[tuple[str, float]]:
    """Milliseconds until a browser that runs, and has nothing of the page, paints each view."""
    with browser.chromium() as chromium:
        state = browser.let_in(chromium, opened)
        for name, path in VIEWS.items():
            yield name, median(_paint(chromium, state, opened.url, path) for _ in range(OPENED))
        yield (
            "a page with nothing on it, for comparison",
            median(_paint(chromium, None, opened.url, "login") for _ in range(OPENED)),
        )


def _paint(chromium: Browser, state: Any, url: str, path: str) -> float:
    context = chromium.new_context(storage_state=state)
    tab = context.new_page()
    tab.goto(f"{url}/static/icon.svg")  # a tab that is there: its process takes as long for any page
    tab.goto(f"{url}/{path}")
    paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    tab.wait_for_function(f"() => {paint}")
    took = float(tab.evaluate(paint))
    context.close()
    return took


def _watched(database: Database, client: httpx.Client, paths: list[str]) -> float:
    """Seconds that the database is busy in one second of all tabs."""
    before, began = _busy(database), time.monotonic()
    until = began + SECONDS

    def tab(n: int) -> None:
        while time.monotonic() < until:
            client.get(f"/{paths[n % len(paths)]}", headers={"X-Fragment": "1"})
            time.sleep(1)

    with ThreadPoolExecutor(TABS) as tabs:
        list(tabs.map(tab, range(TABS)))
    return (_busy(database) - before) / (time.monotonic() - began)


def _busy(database: Database) -> float:
    """Seconds of the processor that the page's sessions have used."""
    rows = database.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'workerbee dashboard'")
    times = [psutil.Process(pid).cpu_times() for (pid,) in rows]
    return sum(one.user + one.system for one in times)


@click.command()
@click.option("--jobs", type=click.IntRange(1000), default=10_000_000, show_default=True)
@click.option("--keep", is_flag=True, help="Say where the page is, and wait for enter before it goes.")
def main(jobs: int, *, keep: bool) -> None:
    """Measure the page with many jobs."""
    console = Console(width=120)
    with large_server() as running:
        console.print(f"the page with {jobs:,} jobs; load {psutil.getloadavg()[0]:.1f}")
        with filled(running, jobs) as database:
            for bar in measure(database):
                console.print(report.verdict(bar))
            if keep:
                with page(database.dsn) as opened:
                    click.prompt(f"{opened.url}/login?token={opened.token} {database.dsn}", default="")


if __name__ == "__main__":
    main()

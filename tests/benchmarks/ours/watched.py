"""What the page does to the rate of a jobset that is looked at in it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.benchmarks import timing
from tests.benchmarks.ours.executor import executor, fresh
from tests.benchmarks.timing import Figures, Place
from tests.dashboard.stage import page


def into(place: Place, *, tabs: int) -> Figures:
    """The rate into a new jobset while so many tabs show it, of which each asks once a second (0: there is no page)."""
    name = fresh()
    with executor(place, name) as ours:
        if not tabs:
            return timing.rate(ours.submit, place.n)
        with page(place.tcp) as opened, looking(opened.url, opened.token, name, tabs):
            return timing.rate(ours.submit, place.n)


@contextmanager
def looking(url: str, token: str, jobset_id: str, tabs: int) -> Iterator[None]:
    """A process that looks as so many tabs do, and has looked once by now."""
    command = [sys.executable, "-m", __name__, url, token, jobset_id, str(tabs)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"looking\n"
        try:
            yield
        finally:
            process.kill()


def look(url: str, token: str, jobset_id: str, tabs: int) -> None:
    """Look until killed: one tab after the other, each once a second."""
    tags: dict[int, str] = {}
    with httpx.Client(base_url=url, timeout=30) as client:
        client.get("/login", params={"token": token}).raise_for_status()
        while True:
            for tab in range(tabs):
                headers = {"X-Fragment": "1", "If-None-Match": tags.get(tab, "")}
                tags[tab] = client.get(f"/jobset/{jobset_id}", headers=headers).headers.get("ETag", "")
                if tab == 0:
                    print("looking", flush=True)
                time.sleep(1 / tabs)


if __name__ == "__main__":
    look(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))

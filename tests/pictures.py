"""``python -m tests.pictures [FOLDER]``: what the commands and a notebook look like.

A study is run, real commands are started in pseudo-terminals, of two widths, and what
stands on their screens is written as SVG, dark and light. The notebook is run by a kernel and shown by a browser.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import click
import nbclient
import nbformat
import pexpect
import pyte
from psycopg2.extensions import parse_dsn

from tests.bees import PROJECT
from tests.dashboard import browser
from tests.dashboard.pictures import small
from tests.servers import server
from workerbee import WorkerbeeExecutor

NAME, N_JOBS = "annealing_2026", 600
#: Units of a letter in the picture, and of the room around the text.
WIDTH, HEIGHT, MARGIN = 8.4, 18, 10


class Theme(NamedTuple):
    """The colours of a terminal."""

    background: str
    text: str
    colours: dict[str, str]


DARK = Theme(
    "#16181d",
    "#d8dbe2",
    {"black": "#16181d", "red": "#ff7b72", "green": "#7ee787", "brown": "#e3b341", "blue": "#79c0ff",
     "magenta": "#d2a8ff", "cyan": "#76e3ea", "white": "#d8dbe2"},
)  # fmt: skip
LIGHT = Theme(
    "#ffffff",
    "#24292f",
    {"black": "#24292f", "red": "#b3261e", "green": "#116329", "brown": "#7d4e00", "blue": "#0550ae",
     "magenta": "#6639ba", "cyan": "#1b7c83", "white": "#57606a"},
)  # fmt: skip
THEMES = {"dark": DARK, "light": LIGHT}
SIZES = {80: 24, 200: 40}

WATCH = f"""
import time, workerbee
with workerbee.open({NAME!r}, dsn={{dsn!r}}) as study:
    study.watch()
    time.sleep(60)
"""


CELLS = [
    f"""import pandas as pd
from workerbee import WorkerbeeExecutor

executor = WorkerbeeExecutor(jobset_id="{NAME}", max_workers=0)
watch = executor.watch()""",
    """watch.stop()
pd.DataFrame(executor.results(all=True)).head(3)""",
]
SHEET = """<!doctype html><meta charset="utf-8"><style>
body { margin: 16px; font: 14px system-ui, sans-serif; background: #fff; color: #24292f; width: 760px }
pre { margin: 0 0 8px; padding: 8px 12px; background: #f6f8fa; border: 1px solid #d0d7de; border-radius: 4px }
.out { margin: 0 12px 20px } table { border-collapse: collapse } th, td { padding: 2px 10px; text-align: right }
</style>"""


def simulate(job: dict[str, int]) -> dict[str, float]:
    """A job that takes its time, and fails at times."""
    time.sleep(0.02 + job["seed"] % 7 / 50)
    if job["seed"] % 23 == 0:
        raise ValueError(f"the lattice {job['seed']} doesn't converge")
    if job["seed"] % 61 == 0:
        raise OSError(28, "No space left on device", f"/scratch/{job['seed']}.h5")
    return {"energy": job["seed"] / 4}


@contextmanager
def study(dsn: str) -> Iterator[None]:
    """A jobset on its way."""
    with WorkerbeeExecutor(2, jobset_id=NAME, dsn=dsn) as executor:
        futures = [executor.submit(simulate, {"seed": n}) for n in range(N_JOBS)]
        threading.Event().wait(6)
        yield
        executor.cancel()
        del futures


def picture(command: list[str], columns: int, until: str, seconds: float) -> pyte.Screen:
    """What stands on the screen some seconds after it says something."""
    lines = SIZES[columns]
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    child = pexpect.spawn(command[0], command[1:], env=environment, dimensions=(lines, columns), timeout=60)
    screen = pyte.Screen(columns, lines)
    stream = pyte.ByteStream(screen)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            stream.feed(child.read_nonblocking(1 << 16, 0.2))
        except pexpect.TIMEOUT:
            pass
        except pexpect.EOF:
            break
        if any(until in line for line in screen.display):
            end = min(end, time.monotonic() + seconds)
    child.close(force=True)
    return screen


def notebook(dsn: str, path: Path) -> None:
    """Photograph what a notebook shows of the study, with the outputs of its cells as a kernel gave them."""
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    parts = parse_dsn(dsn)
    os.environ.update(PYTHONPATH=str(PROJECT), PGHOST=parts["host"], PGPORT=parts["port"])
    os.environ.update(PGUSER=parts["user"], PGDATABASE=parts["dbname"])
    nbclient.NotebookClient(made, timeout=60).execute()
    page = [SHEET]
    for cell in made.cells:
        shown = [output["data"].get("text/html", "") for output in cell.outputs if "data" in output]
        page.append(f"<pre>{escape(cell.source)}</pre><div class=out>{''.join(shown)}</div>")
    with browser.chromium() as chromium:
        tab = chromium.new_page(viewport={"width": 800, "height": 200})
        tab.set_content("".join(page))
        small(tab.screenshot(full_page=True)).save(path, optimize=True)


def drawn(screen: pyte.Screen, theme: Theme, title: str) -> str:
    """The screen as SVG, down to its last line with text."""
    used = max((n for n, line in enumerate(screen.display) if line.strip()), default=0) + 1
    width, height = screen.columns * WIDTH + 2 * MARGIN, used * HEIGHT + 2 * MARGIN
    rows = "".join(f"{row(screen, n, theme)}\n" for n in range(used))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'font-family="ui-monospace, DejaVu Sans Mono, monospace" font-size="14" fill="{theme.text}">\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="100%" height="100%" rx="6" fill="{theme.background}"/>\n{rows}</svg>\n'
    )


def row(screen: pyte.Screen, n: int, theme: Theme) -> str:
    """A line: a text for each run of letters that look alike."""
    y = MARGIN + n * HEIGHT + 14
    parts = []
    cells = [(x, screen.buffer[n][x]) for x in range(screen.columns)]
    for look, run in groupby(cells, key=lambda cell: (cell[1].fg, cell[1].bold, cell[1].reverse)):
        letters = list(run)
        text = "".join(cell.data for _, cell in letters)
        colour, bold, reverse = look
        x = MARGIN + letters[0][0] * WIDTH
        if reverse:
            parts.append(
                f'<rect x="{x:.1f}" y="{y - 14}" width="{len(letters) * WIDTH:.1f}" height="{HEIGHT}" opacity="0.25"/>'
            )
        if text.strip():
            lead = len(text) - len(text.lstrip())
            text = text.strip()
            fill = theme.colours.get(colour, theme.text if colour == "default" else f"#{colour}")
            weight = ' font-weight="bold"' if bold else ""
            parts.append(
                f'<text x="{x + lead * WIDTH:.1f}" y="{y}" textLength="{len(text) * WIDTH:.1f}" fill="{fill}"{weight} '
                f'xml:space="preserve">{escape(text)}</text>'
            )
    return "".join(parts)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=PROJECT / "docs" / "pictures")
def main(folder: Path) -> None:
    """Write pictures of top, failures, status, a watch and a notebook into FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    with server() as running, study(running.dsn):
        tool = [sys.executable, "-m", "workerbee"]
        scenes = {
            "top": ([*tool, "top", NAME, "--dsn", running.dsn], "RUNNING", 2.5),
            "status": ([*tool, "status", NAME, "--dsn", running.dsn], "next", 3.0),
            "failures": ([*tool, "failures", NAME, "--dsn", running.dsn], "FOR EXAMPLE", 3.0),
            "watch": ([sys.executable, "-c", WATCH.format(dsn=running.dsn)], "as of", 3.0),
        }
        for name, (command, until, seconds) in scenes.items():
            for columns in SIZES:
                screen = picture(command, columns, until, seconds)
                for theme, colours in THEMES.items():
                    path = folder / f"{name}-{columns}-{theme}.svg"
                    path.write_text(drawn(screen, colours, f"workerbee {name}, {columns} columns"), "utf-8")
                    click.echo(path)
        notebook(running.dsn, folder / "notebook.png")


if __name__ == "__main__":
    main()

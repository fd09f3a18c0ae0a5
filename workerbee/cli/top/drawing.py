"""How a screen is drawn: rich's renderables, in so many columns and lines."""

from __future__ import annotations

import time
from textwrap import wrap

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from workerbee.cli.terminal import local, printable, shortened
from workerbee.cli.top.lists import List, list_of
from workerbee.cli.top.looking import Seen
from workerbee.cli.top.screen import Screen

HELP = """
  ↑ ↓     choose a line             enter  open it: a jobset, or a job with its error
  f       failures by their cause   r      run those of the chosen cause once more
  b       bees                      p      freeze, and go on
  q       back, and at last end     ?      this
"""
KEYS = "q back  ? help  ↑↓ enter choose  f failures  b bees  p freeze  r retry"


def drawn(screen: Screen, width: int, height: int) -> RenderableType:
    """All of it."""
    head = _head(screen, width)
    room = max(2, height - len(head) - 2)
    if screen.view == "help":
        body: RenderableType = Text(HELP)
    elif screen.view == "job":
        body = _job(screen.seen, width, room)
    else:
        body = _table(list_of(screen.view, screen.seen), screen.chosen, room)
    return Group(*head, body, Text(""), Text((screen.said or KEYS)[: width - 1], "reverse"))


def _head(screen: Screen, width: int) -> list[RenderableType]:
    seen = screen.seen
    title = Text(f"workerbee  {screen.jobset_id or 'all jobsets'}", "bold")
    title.append(f"   {time.strftime('%H:%M:%S', time.localtime(seen.at))}", "dim")
    title.append("   frozen: p goes on" if screen.is_frozen else "", "bold yellow")
    lines: list[RenderableType] = [title]
    if seen.away_since is not None:
        lines.append(Text(shortened(f"{seen.line}; this is what was there before", width - 1), "bold red"))
    return [*lines, *_how_it_goes(seen, width), Text("")]


def _how_it_goes(seen: Seen, width: int) -> list[RenderableType]:
    """The sentence, what helps, a bar and the numbers."""
    if seen.outlook is None or seen.progress is None or seen.jobset is None:
        return []
    lines: list[RenderableType] = [Text(line) for line in wrap(printable(seen.outlook.sentence), width - 1)[:2]]
    if seen.jobset.paused_at is not None:
        lines.append(Text(f"Paused since {local(seen.jobset.paused_at)} by {seen.jobset.paused_by}", "yellow"))
    elif seen.outlook.advice is not None:
        lines.append(Text(shortened(f"next: {seen.outlook.advice}", width - 1), "yellow"))
    done = seen.progress.added - seen.progress.open
    bar = ProgressBar(total=max(1, seen.progress.added), completed=done, width=min(width - 1, 100))
    lines.append(Padding(bar, 0))  # which ends its line
    return [*lines, Text(shortened(_numbers(seen), width - 1))]


def _numbers(seen: Seen) -> str:
    """Counts, rate and bees."""
    assert seen.progress is not None  # noqa: S101 (drawn only with it)
    assert seen.jobset is not None  # noqa: S101
    counts, shown = seen.jobset.counts, seen.progress._asdict()
    shown |= {"tried again": counts.retried, "lost": counts.lost, "copies": counts.speculative}
    told = ", ".join(f"{n:,} {name}" for name, n in shown.items() if n)
    alive = sum(bee.alive for bee in seen.bees)
    silent = f", {len(seen.bees) - alive} silent" if len(seen.bees) > alive else ""
    rate = "" if seen.rate is None else f"; {seen.rate:.3g} jobs/s"
    return f"{told}{rate}; {alive} bee{'s' * (alive != 1)}{silent}"


def _table(shown: List, chosen: int, room: int) -> RenderableType:
    if not shown.rows:
        return Text(shown.empty, "dim")
    chosen = min(chosen, len(shown.rows) - 1)
    first = max(0, chosen - room + 2)
    made = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for n, heading in enumerate(shown.headings, 1):
        made.add_column(heading, no_wrap=True, overflow="ellipsis", ratio=1 if n == len(shown.headings) else None)
    for n, row in enumerate(shown.rows[first : first + room - 1], first):
        cells = (Text(shortened(printable(str(cell)), 200)) for cell in row)
        made.add_row(*cells, style="reverse" if n == chosen else "")
    return made


def _job(seen: Seen, width: int, room: int) -> RenderableType:
    """One job: what it was given, what became of it, and the end of its traceback."""
    if seen.job is None:
        return Text("it is gone", "dim")
    row, events = seen.job
    lines = [
        f"job {row.id}: {row.status}, run {row.run}" + f", {row.function}" * bool(row.function),
        f"input:  {row.input or row.input_codec}",
    ]
    if row.output_codec is not None:
        lines.append(f"output: {row.output or row.output_codec}")
    lines += [f"{local(event.at)}  run {event.run}  {event.kind}  {event.host or ''}" for event in events[-5:]]
    trace = str(events[-1].error.get("traceback") or "").splitlines() if events else []
    lines += trace[-max(1, room - len(lines)) :]
    return Text("\n".join(printable(line)[: width - 1] for line in lines[:room]))

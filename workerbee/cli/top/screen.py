"""What ``workerbee top`` is at: its views, and what its keys do."""

from __future__ import annotations

import time
from collections.abc import Callable

from workerbee.changing import Changing
from workerbee.cli.terminal import shortened
from workerbee.cli.top.lists import list_of
from workerbee.cli.top.looking import Look, Seen
from workerbee.reading import Wanted, is_passing


class Screen:
    """One of several views of what was seen; keys lead from one to the other."""

    def __init__(self, look: Look) -> None:
        self.seen = Seen(time.time())
        self.is_over = self.is_frozen = False
        self._look = look
        self._views = ["jobsets" if look.jobset_id is None else "jobset"]
        self.chosen = 0
        self._question: Callable[[], str] | None = None
        self.said = ""

    @property
    def view(self) -> str:
        """The name of what is shown."""
        return self._views[-1] if self._views else ""

    @property
    def jobset_id(self) -> str | None:
        """The jobset that is shown; None: all."""
        return self._look.jobset_id

    # Keys

    def press(self, key: str) -> None:
        """Do what a key means; any other one than y takes a question back."""
        if self._question is not None:
            answer, self._question = self._question, None
            self.said = _tried(answer) if key == "y" else "left as it is"
            return
        self.said = ""
        actions: dict[str, Callable[[], None]] = {
            "q": self._back,
            "?": lambda: self._open("help"),
            "f": lambda: self._open("failures"),
            "b": lambda: self._open("bees"),
            "p": self._freeze,
            "r": self._ask_to_retry,
            "enter": self._enter,
            "up": lambda: self._move(-1),
            "down": lambda: self._move(1),
        }
        actions.get(key, lambda: None)()

    def _move(self, step: int) -> None:
        self.chosen = max(0, min(self.chosen + step, len(list_of(self.view, self.seen).rows) - 1))

    def _freeze(self) -> None:
        self.is_frozen = not self.is_frozen

    def _open(self, view: str) -> None:
        if self.view != view and (self._look.jobset_id is not None or view == "help"):
            self._views.append(view)
            self.chosen = 0

    def _back(self) -> None:
        left = self._views.pop()
        self.chosen = 0
        if left == "job":
            self._look.job = None
        elif left == "jobset":
            self._look.choose(None)
        self.is_over = not self._views
        self._refresh()

    def _enter(self) -> None:
        opens = list_of(self.view, self.seen).opens
        if self.chosen >= len(opens):
            return
        if self.view == "jobsets":
            self._look.choose(opens[self.chosen])
            self._open("jobset")
        elif opens[self.chosen] is not None:
            self._look.job = opens[self.chosen]
            self._open("job")
        self._refresh()

    def _refresh(self) -> None:
        if not self.is_over:
            self.seen = self._look.refreshed()

    def _ask_to_retry(self) -> None:
        row = self.seen.jobset
        if self.view != "failures" or self.chosen >= len(self.seen.causes) or row is None:
            self.said = "f lists the causes of failures; r runs those of the chosen one once more"
            return
        cause = self.seen.causes[self.chosen]
        changing, wanted = Changing(self._look.reader.connection, row.jobset), Wanted(("failed",), cause=cause.digest)
        self.said = f"Run {cause.n:,} jobs once more, which failed by {cause.cause.type}? y or n"
        self._question = lambda: f"{changing.retry_wanted(wanted):,} jobs wait to be run once more"


def _tried(action: Callable[[], str]) -> str:
    try:
        return action()
    except Exception as error:
        if not is_passing(error):
            raise
        return shortened(str(error), 70)

"""A live view of a jobset in a notebook or a terminal, from a thread that only reads: the kernel stays free."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from html import escape
from typing import Any, NamedTuple, Protocol

from workerbee.errors import JobsetNotFoundError
from workerbee.reading import is_passing

#: Seconds between looks while jobs are open, while none is, and between displays of a view that doesn't change.
LOOK_SECONDS, REST_SECONDS, STALE_SECONDS = 0.5, 5.0, 5.0
#: Seconds for which the first view is waited for.
FIRST_SECONDS = 1.0
#: Seconds between lines, if lines that were printed can't be replaced.
LINE_SECONDS = 10.0
#: Letters of how it goes that are shown in the narrowest terminal.
FEWEST_LETTERS = 20


class Going(Protocol):
    """The state of a jobset, as far as it is shown."""

    @property
    def percent(self) -> int:
        """The percentage of jobs that have ended."""

    @property
    def sentence(self) -> str:
        """The sentence that says how it goes."""

    @property
    def advice(self) -> str | None:
        """A command that helps."""

    @property
    def is_over(self) -> bool:
        """Tell whether nothing is open."""


ReadGoing = Callable[[], Going]


class View(NamedTuple):
    """The things shown: how it went at a moment, and what there is to say of the look itself."""

    name: str
    going: Going | None
    at: float
    trouble: str = ""

    @property
    def text(self) -> str:
        """In one line."""
        said = "looking …" if self.going is None else self.going.sentence
        advice = f" Next: {self.going.advice}" if self.going is not None and self.going.advice else ""
        trouble = f" {self.trouble}" if self.trouble else ""
        return f"{self.name}: {said}{advice}{trouble} (as of {_moment(self.at)})"

    @property
    def html(self) -> str:
        """As a notebook shows it, in the colours of its theme."""
        percent = 0 if self.going is None else self.going.percent
        said = "looking …" if self.going is None else self.going.sentence
        advice = f"<div><code>{escape(self.going.advice)}</code></div>" if self.going and self.going.advice else ""
        trouble = f"<div><b>{escape(self.trouble)}</b></div>" if self.trouble else ""
        return (
            f"<div><b>{escape(self.name)}</b>: {escape(said)}{advice}{trouble}"
            '<div style="border:1px solid currentColor;border-radius:3px;height:0.7em;max-width:40em;margin:0.3em 0">'
            f'<div style="background:currentColor;opacity:0.6;height:100%;width:{percent}%"></div></div>'
            f'<small style="opacity:0.7">as of {escape(_moment(self.at))}</small></div>'
        )


class Watch:
    """Shows how a jobset goes, at most twice a second, until `stop`, or until what it belongs to has ended."""

    def __init__(
        self, name: str, looks: Callable[[], AbstractContextManager[ReadGoing]], has_ended: Callable[[], bool]
    ) -> None:
        """``looks`` opens what the thread looks by; ``has_ended`` says that nobody is there any more to show it to."""
        self._name = name
        self._looks = looks
        self._has_ended = has_ended
        self._view = View(name, None, time.time())
        self._stop, self._seen = threading.Event(), threading.Event()
        self._shown = _display(self._view)
        self._thread = threading.Thread(target=self._run, name="workerbee watch", daemon=True)
        self._thread.start()
        self._seen.wait(FIRST_SECONDS)

    def __repr__(self) -> str:
        return f"<Watch of {self._view.text}>"

    def _ipython_display_(self) -> None:
        """Display nothing: the view is displayed already."""

    @property
    def is_watching(self) -> bool:
        """Tell whether the view is still kept up to date."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Look a last time, and leave what is shown as it is then."""
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(LOOK_SECONDS + REST_SECONDS)

    def _run(self) -> None:
        try:
            with self._looks() as look:
                is_last = False
                while not is_last:
                    is_last = self._stop.is_set() or self._has_ended()
                    going = self._look_once(look)
                    self._seen.set()
                    self._pause(REST_SECONDS if going is not None and going.is_over else LOOK_SECONDS)
        except JobsetNotFoundError:
            self._show(self._view._replace(trouble="The jobset is gone."))
        except Exception as error:  # noqa: BLE001 (it is said where it is looked for)
            self._show(self._view._replace(trouble=f"{type(error).__name__}: {error}"))
        finally:
            self._seen.set()
            self._shown.close()

    def _pause(self, seconds: float) -> None:
        """Wait, but not after the watch was stopped or its owner has ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._has_ended() and not self._stop.wait(min(LOOK_SECONDS, seconds)):
            pass

    def _look_once(self, look: ReadGoing) -> Going | None:
        try:
            going = look()
        except Exception as error:
            if not is_passing(error):
                raise
            since = f"The database hasn't answered since {_moment(self._view.at)}."
            self._show(self._view._replace(trouble=self._view.trouble or since))
        else:
            self._show(View(self._name, going, time.time()))
            return going
        return None

    def _show(self, view: View) -> None:
        is_same = view.going == self._view.going and view.trouble == self._view.trouble
        if not is_same or (view.at > self._view.at + STALE_SECONDS and not (view.going and view.going.is_over)):
            self._view = view
            self._shown.show(view)


class _Page:
    """A notebook's display, which is replaced wherever it is shown."""

    def __init__(self, view: View) -> None:
        from IPython import display  # noqa: PLC0415 (only notebooks have it)

        publish: Any = display.display
        self._handle = publish(_bundle(view), raw=True, display_id=True)

    def show(self, view: View) -> None:
        self._handle.update(_bundle(view), raw=True)

    def close(self) -> None:
        pass


class _Line:
    """A line of a terminal, which is written over."""

    def __init__(self, view: View) -> None:
        self.show(view)

    def show(self, view: View) -> None:
        self._view = view
        self._write(_fitting(view, _columns() - 1))

    def close(self) -> None:
        """Leave all of the last view, however many lines that takes."""
        self._write(f"{self._view.text}\n")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()


class _Log:
    """Lines now and then, where somebody types or a file is written."""

    def __init__(self, view: View) -> None:
        self._view, self._due = view, 0.0

    def show(self, view: View) -> None:
        self._view = view
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + LINE_SECONDS
            self._print()

    def _print(self) -> None:
        sys.stderr.write(f"{self._view.text}\n")
        sys.stderr.flush()
        self._view = self._view._replace(going=None)

    def close(self) -> None:
        if self._view.going is not None:
            self._print()


def _display(view: View) -> _Page | _Line | _Log:
    """Choose the kind of display that works here."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None and hasattr(shell, "kernel"):
        return _Page(view)
    if shell is None and not hasattr(sys, "ps1") and sys.stderr.isatty():
        return _Line(view)
    return _Log(view)


def _bundle(view: View) -> dict[str, str]:
    return {"text/plain": view.text, "text/html": view.html}


def _fitting(view: View, width: int) -> str:
    """Shorten the text where it is longer than a line: how it goes, and not what helps, as far as that is possible."""
    if len(view.text) <= width:
        return view.text
    when = f" ({_moment(view.at).split()[1]})"
    said = view.trouble or view.text
    advice = f" Next: {view.going.advice}" if view.going is not None and view.going.advice and not view.trouble else ""
    end = next((end for end in (advice + when, advice, when, "") if len(end) + FEWEST_LETTERS <= width), "")
    return f"{said[: width - len(end) - 1]}…{end}" if end else said[:width]


def _columns() -> int:
    import shutil  # noqa: PLC0415

    return shutil.get_terminal_size().columns


def _moment(epoch: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(epoch))

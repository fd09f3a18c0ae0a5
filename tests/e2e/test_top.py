"""``workerbee top``: a live screen in a real terminal, which is afterwards as it was, and lines without one."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator

import click.testing
import pexpect
import pytest

from tests.bees import PROJECT
from tests.faultproxy import FaultProxy
from tests.servers import Database
from tests.store.hive import Hive, make_study
from workerbee.cli import main
from workerbee.cli.top.keys import split_keys
from workerbee.store import Connection

PATIENCE = 60
RESTORED = "\x1b[?1049l"


@pytest.fixture
def study(shared: Database) -> Iterator[Hive]:
    """The jobset ``study``: twelve completed jobs, two that failed for one cause, one that runs and one that waits."""
    connection = Connection(shared.dsn)
    hive = make_study(connection, "study", "node-17", 12)
    yield hive
    hive.catalogue.drop_jobset(hive.jobset)
    connection.close()


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *arguments: str, columns: int = 80) -> None:
        environment = os.environ | {"PYTHONPATH": str(PROJECT), "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "workerbee", *arguments],
            env=environment,
            dimensions=(24, columns),
            encoding="utf-8",
            timeout=PATIENCE,
        )
        self.before = termios.tcgetattr(self.child.child_fd)

    def shows(self, text: str) -> None:
        """Wait until it is on the screen."""
        self.child.expect_exact(text)

    def press(self, key: str, *texts: str) -> None:
        """Press a key, and wait for what it has to show."""
        self.child.send(key)
        for text in texts:
            self.shows(text)

    def ends(self) -> int:
        """Its exit status; the terminal is as it was before."""
        self.child.expect_exact(RESTORED)
        self.child.expect(pexpect.EOF)
        self.child.close()
        return self.child.exitstatus if self.child.exitstatus is not None else 128 + self.child.signalstatus


@pytest.fixture
def terminal(shared: Database, study: Hive) -> Iterator[Terminal]:
    """What ``workerbee study`` shows: the same as ``workerbee top study``."""
    opened = Terminal("study", "--dsn", shared.dsn)
    opened.shows("Under way: 87 % of 16 jobs have ended, 2 are open")
    yield opened
    opened.child.close(force=True)


def test_keys_lead_through_the_screen(terminal: Terminal) -> None:
    """Failures, bees, help, a job with its error; q goes back, and at last ends it."""
    terminal.shows("1 waiting, 1 running, 12 completed, 2 failed")
    terminal.shows("15 ")
    terminal.press("f", "ValueError: unlucky #")
    terminal.press("\r", "job 14: failed, run 1", '{"n": 14}', "ValueError: unlucky 14")
    terminal.press("q", "FAILED")
    terminal.press("b", "HEARD OF", "node-17")
    terminal.press("?", "freeze, and go on")
    for _ in "?bf":
        terminal.child.send("q")
    terminal.shows("RUNNING")
    terminal.press("p", "frozen: p goes on")
    inside = termios.tcgetattr(terminal.child.child_fd)
    assert inside != terminal.before
    terminal.child.send("q")
    assert terminal.ends() == 0


def test_r_retries_the_chosen_group(terminal: Terminal, study: Hive) -> None:
    """After it has asked; anything but y leaves it."""
    terminal.press("r", "f lists the causes of failures")
    terminal.press("f", "unlucky #")
    terminal.press("r", "Run 2 jobs once more, which failed by ValueError? y or n")
    terminal.press("n", "left as it is")
    assert [study.status(job) for job in (13, 14)] == ["failed", "failed"]
    terminal.press("r", "Run 2 jobs")
    terminal.press("y", "2 jobs wait to be run once more")
    assert [study.status(job) for job in (13, 14)] == ["waiting", "waiting"]


def test_advice_means_the_same_server(shared: Database) -> None:
    """The option that was typed is repeated."""
    connection = Connection(shared.dsn)
    hive = Hive(connection, "unserved")
    hive.add()
    opened = Terminal("unserved", "--dsn", shared.dsn, columns=200)
    opened.shows(f"next: python -m workerbee.bee unserved --dsn {shlex.quote(shared.dsn)}")
    opened.press("q")
    assert opened.ends() == 0
    hive.catalogue.drop_jobset(hive.jobset)
    connection.close()


def test_it_is_drawn_anew_in_another_size(terminal: Terminal) -> None:
    """At once, and as wide as the terminal is."""
    terminal.child.setwinsize(24, 200)
    terminal.shows(" to go with 1 runner.")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_it_in_order(terminal: Terminal, number: int, status: int) -> None:
    """The terminal is as it was."""
    terminal.child.kill(number)
    assert terminal.ends() == status


def test_an_outage_is_said_and_waited_out(shared: Database, study: Hive) -> None:
    """Since when; what was there before stays, and then it goes on."""
    with FaultProxy("127.0.0.1", shared.server.port) as proxy:
        opened = Terminal("top", "study", "--dsn", proxy.dsn(shared.dsn))
        opened.shows("Under way")
        proxy.refuse()
        proxy.cut()
        opened.shows("the database hasn't answered since")
        proxy.accept()
        study.add()
        opened.shows("82 % of 17 jobs")
        opened.press("q")
        assert opened.ends() == 0


def test_all_jobsets_are_there_to_choose_from(shared: Database, study: Hive) -> None:
    """Arrows and enter; q leads back."""
    opened = Terminal("top", "--dsn", shared.dsn)
    opened.shows("all jobsets")
    opened.press("\x1b[B\x1b[A\r", "Under way: 87 %")
    opened.press("q", "all jobsets")
    opened.press("q")
    assert opened.ends() == 0


def test_without_a_terminal_it_prints_lines(shared: Database, study: Hive) -> None:
    """One at each look, until nothing is open."""
    command = [sys.executable, "-m", "workerbee", "study", "--interval", "0.1", "--dsn", shared.dsn]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        assert re.fullmatch(r"[-\d]+ [:\d]+  Under way: 87 % of 16 .* 2 failed\.\n", first), first
        assert second
        study.client.cancel_running([(15, 1), (16, 1)])
        assert process.stdout.read().splitlines()[-1].endswith("Done: 12 completed, 2 failed, 2 cancelled.")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("top", "studie"), "did you mean 'study'?"),
        (("studie",), "did you mean 'study'?"),
        (("statsu",), "there is no command 'statsu'; did you mean 'status'?"),
    ],
)
def test_mistakes_are_named_with_the_nearest(
    shared: Database, study: Hive, arguments: tuple[str, ...], said: str
) -> None:
    """Status 2, for a jobset as for a command."""
    result = click.testing.CliRunner().invoke(main, [*arguments, "--dsn", shared.dsn])
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("q", ["q"]),
        ("\x1b[A\x1b[B\r", ["up", "down", "enter"]),
        ("\x1bOAf\n", ["up", "f", "enter"]),
        ("\x1b[5~\x1b[1;5Cx", ["x"]),
        ("\x1b", ["\x1b"]),
        ("\x1b[", []),
    ],
)
def test_keys_are_told_apart(text: str, keys: list[str]) -> None:
    """Whatever a terminal sends for keys that mean nothing here is passed over."""
    assert split_keys(text) == keys

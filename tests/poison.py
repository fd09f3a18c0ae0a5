"""Jobs that do harm. A runner imports this module by its name, so it is light."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress


def segfault() -> None:
    print("here it comes")
    ctypes.string_at(0)


def exit_at_once() -> None:
    os._exit(7)


class ExitWhenLoaded:
    """A function by value, whose loading ends the process."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (9,)

    def __call__(self) -> None:
        return


def devour() -> None:
    """Ends as the kernel's out-of-memory killer would end it."""
    hoard = bytearray(300_000_000)
    hoard[::4096] = b"x" * len(hoard[::4096])
    os.kill(os.getpid(), signal.SIGKILL)


def exceed_memory_limit() -> int:
    """Asks for more than its limit of memory."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000, before[1]))
    try:
        return len(bytearray(4_000_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def loop_for_ever() -> None:
    print("round and round")
    while True:
        pass


def hold_the_gil(seconds: float) -> float:
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # a PyDLL, unlike others, doesn't let go of it
    return seconds


def print_much(megabytes: int) -> int:
    line = "x" * 999_999 + "\n"
    for _ in range(megabytes):
        sys.stdout.write(line)
    print("that was all")
    return megabytes


def leave_children(n: int) -> list[int]:
    """Start processes that outlive the job; their pids."""
    return [subprocess.Popen(["sleep", "1000"]).pid for _ in range(n)]


def start_children_and_hang(path: str) -> None:
    with open(path, "w") as file:  # noqa: PTH123 (nothing is imported for it)
        file.write(" ".join(map(str, leave_children(3))))
    loop_for_ever()


def return_twice() -> str:
    """Forks, and lets the child come back through the caller too."""
    if os.fork() == 0:
        return "the child"
    time.sleep(0.3)
    return "the parent"


def neighbour(n: int) -> int:
    return n


def fail_on_a_broken_machine(n: int) -> int:
    """Where the environment says so, nothing works, and that at once."""
    if "BROKEN_MACHINE" in os.environ:
        raise OSError("no such disk")
    time.sleep(0.03)
    return n


def fail_everywhere(n: int) -> int:
    raise KeyError(n)


def write_everywhere(data: bytes) -> None:
    """Write to every socket that this process has, as a program does that has lost count of its descriptors."""
    for fd in range(3, 1000):
        with suppress(OSError):
            socket.socket(fileno=os.dup(fd)).send(data)


def say(*pieces: bytes, size: int | None = None) -> None:
    """Say this to the supervisor in a runner's place; ``size`` is what is announced."""
    frame = b"".join(pieces)
    write_everywhere(struct.pack("!Q", len(frame) if size is None else size) + frame)


class HangWhenLoaded:
    """A function by value, whose loading never ends."""

    def __reduce__(self) -> tuple[object, ...]:
        return time.sleep, (1000,)

    def __call__(self) -> None:
        return

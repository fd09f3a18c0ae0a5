"""The stack of a running job: at a signal its runner writes down all threads' stacks, even while it is stuck in C."""

from __future__ import annotations

import faulthandler
import os
import re
import signal
from contextlib import suppress

from workerbee.bee.channel import shared_memory

#: A signal that programs hardly use.
SIGNAL = signal.SIGRTMAX - 3
#: The most bytes of stacks that are kept.
MOST_BYTES = 1 << 16
_OURS = re.compile(r'^  File ".*/workerbee/perform\.py", line \d+ in perform$')


def stand_by(fd: int) -> None:
    """Be ready to write the stacks to this file, in a runner."""
    faulthandler.register(SIGNAL, fd, all_threads=True)


class Stack:
    """The file that the bee and a runner share, from the bee's side."""

    def __init__(self) -> None:
        self.fd = shared_memory()

    def ask(self, pid: int) -> None:
        """Have the runner write its stacks down."""
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)
        with suppress(ProcessLookupError):
            os.kill(pid, SIGNAL)

    def text(self) -> str:
        """Read the stacks without the frames of the runner itself, which has called the job."""
        lines = os.pread(self.fd, MOST_BYTES, 0).decode(errors="replace").splitlines()
        kept, is_ours = [], False
        for line in lines:
            is_ours = line.startswith("  ") and (is_ours or _OURS.match(line) is not None)
            if not is_ours:
                kept.append(line)
        return "\n".join(kept)

    def close(self) -> None:
        os.close(self.fd)

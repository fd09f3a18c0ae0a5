"""The output of an execution, to stdout and to stderr: of a long text the beginning and the end are kept."""

from __future__ import annotations

from typing import NamedTuple

#: Bytes that are kept of what a failed execution has printed to each stream, and of what a successful one has.
HEAD_BYTES, TAIL_BYTES, SUCCESS_BYTES = 8 << 10, 56 << 10, 4 << 10
#: Lines of it that the error's notes carry, and characters of each.
NOTED_LINES, NOTED_CHARS = 20, 500


class Text:
    """Takes a text of any length, and keeps its first bytes and its last ones."""

    __slots__ = ("_head", "_tail", "size")

    def __init__(self) -> None:
        self.size = 0
        self._head, self._tail = bytearray(), bytearray()

    def add(self, data: bytes) -> None:
        """Add the next bytes."""
        self.size += len(data)
        room = HEAD_BYTES - len(self._head)
        self._head += data[:room]
        self._tail += data[max(room, len(data) - TAIL_BYTES) :]
        del self._tail[:-TAIL_BYTES]

    def kept(self, most: int = HEAD_BYTES + TAIL_BYTES) -> bytes:
        """Give the first bytes and the last ones; with less room than for these, the last ones."""
        return bytes(self._head + self._tail)[-most:]


class Printed(NamedTuple):
    """The kept output of an execution: of each stream the first ``head`` bytes and the last ones, and its full size."""

    head: int
    stdout: bytes
    stderr: bytes
    stdout_size: int
    stderr_size: int

    @classmethod
    def of(cls, stdout: Text, stderr: Text, *, has_failed: bool) -> Printed:
        """Take as much as is kept; less of an execution that hasn't failed."""
        most = HEAD_BYTES + TAIL_BYTES if has_failed else SUCCESS_BYTES
        head = HEAD_BYTES if has_failed else 0
        return cls(head, stdout.kept(most), stderr.kept(most), stdout.size, stderr.size)

    @property
    def size(self) -> int:
        """Bytes of all that was printed."""
        return self.stdout_size + self.stderr_size

    def after(self, stream: int, n: int) -> bytes:
        """Give what came on stdout (1) or stderr (2) after the first ``n`` bytes; a line says how much is missing."""
        kept, size = (self.stdout, self.stdout_size) if stream == 1 else (self.stderr, self.stderr_size)
        if len(kept) == size:
            return kept[n:]
        beginning, end = kept[: self.head], kept[self.head :]
        before, missing = beginning[n:], size - len(end) - max(n, self.head)
        if missing <= 0:
            return before + end[-missing:]
        new_line = b"\n" if before and not before.endswith(b"\n") else b""
        return before + new_line + f"[{missing:,} bytes are missing here]\n".encode() + end

    def text(self, stream: int) -> str:
        """Give all that is kept of what was printed to stdout (1) or stderr (2)."""
        return self.after(stream, 0).decode(errors="replace")

    def notes(self) -> list[str]:
        """Write notes for an error: the last lines of each stream that has any."""
        notes = []
        for stream, name in ((1, "stdout"), (2, "stderr")):
            lines = self.text(stream).splitlines()[-NOTED_LINES:]
            if lines:
                notes.append("\n".join([f"what it printed last to {name}:", *(line[:NOTED_CHARS] for line in lines)]))
        return notes


NOTHING = Printed(0, b"", b"", 0, 0)


class Output(str):
    """The text that a job has printed, stdout before stderr; ``stdout`` and ``stderr`` are each of them alone."""

    __slots__ = ("stderr", "stdout")
    stdout: str
    stderr: str

    @classmethod
    def of(cls, printed: Printed) -> Output:
        """Make it of what is kept."""
        stdout, stderr = printed.text(1), printed.text(2)
        made = cls(stdout + stderr)
        made.stdout, made.stderr = stdout, stderr
        return made

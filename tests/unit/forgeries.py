"""What somebody may do to a file of ours: each changes it, and may leave what creates a mark when it is unpickled."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

Forgery = Callable[[Path, Path], object]


def code(mark: Path) -> bytes:
    """Create the mark, when unpickled."""
    return b"cos\nmkdir\n(V" + str(mark).encode() + b"\ntR."


def planted_pickle(file: Path, mark: Path) -> None:
    planted = code(mark)
    file.write_bytes(planted + file.read_bytes()[len(planted) :])


def flipped(at: int) -> Forgery:
    def change(file: Path, _: Path) -> None:
        data = bytearray(file.read_bytes())
        data[at] ^= 1
        file.write_bytes(data)

    return change


def in_its_place(make: Forgery) -> Forgery:
    """Put another thing there, which is told where the file is now."""

    def change(file: Path, mark: Path) -> None:
        moved = mark.with_name("moved")
        file.rename(moved)
        make(file, moved)

    return change


def links_to(target: str) -> Forgery:
    return in_its_place(lambda file, _: file.symlink_to(target))


#: Of any file.
FORGERIES: dict[str, Forgery] = {
    "gone": lambda file, _: file.unlink(),
    "empty": lambda file, _: os.truncate(file, 0),
    "a byte shorter": lambda file, _: os.truncate(file, file.stat().st_size - 1),
    "a byte longer": lambda file, _: os.truncate(file, file.stat().st_size + 1),
    "the first byte": flipped(0),
    "the last byte": flipped(-1),
    "a pickle in its place": planted_pickle,
    "a device": links_to("/dev/zero"),
    "a pipe": in_its_place(lambda file, _: os.mkfifo(file)),
    "a folder": in_its_place(lambda file, _: file.mkdir()),
}

"""Servers whose clock can be set: by libfaketime, where it is installed."""

from __future__ import annotations

from pathlib import Path

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


class Clock:
    """What a server takes for the time: seconds ahead of ours, in a file that it reads again and again."""

    def __init__(self, directory: Path) -> None:
        directory.chmod(0o755)
        self._file = directory / "ahead"
        self.set(0)

    def set(self, ahead: int) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead:+d}\n")
        new.chmod(0o644)
        new.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PRELOAD_IN_SERVER": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "NO_FAKE_STAT": "1",
        }

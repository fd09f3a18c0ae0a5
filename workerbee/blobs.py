"""Large values of durable jobsets in files that clients and bees see: a place, named by a URL, has a folder a jobset.

A value's row then has a signed reference in its place: the folder, the file's name, how long it is, its SHA-256, and
its codec. A file is the value's JSON or pickle and nothing else, so that it can be read without us. It is written under
another name and renamed: whoever sees it sees all of it. A result's is named by its job, its run and its content, so
that what killed bees have left is told from others. An argument's is named by its content alone, and its large arrays
are files of their own: so an array that a thousand calls have is one file.

A folder is made once, by who brings the jobset's first calls, and never by a bee: where the place isn't mounted, the
folder isn't seen, and so nothing is written to what lies below, nor is any value taken for lost.

``file`` URLs need nothing else; all others are fsspec's (`files`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple, NoReturn, cast
from urllib.parse import urlsplit
from uuid import UUID

from workerbee.errors import LargeValuesError, LostValueError
from workerbee.files import MARK, Files, files_of
from workerbee.reference import CODECS
from workerbee.resources import Few

#: The codec of a reference.
BLOB = "blob"
#: A value of so many bytes or more is a file, by default.
LEAST_BYTES = 1_000_000
#: Seconds after which a file that no row names, or half of one, is taken to be a killed process's. An outage may last.
ORPHAN_SECONDS = 86_400.0
_FILE = re.compile(r"(?:a|r([0-9]+)-([0-9]+)-)([0-9a-f]{64})")
_DRAFT = re.compile(r"\.[0-9a-f]{32}")
_FOLDER = re.compile(r"/workerbee-[0-9a-f]{32}\Z")


class Depot(NamedTuple):
    """A place for values of ``least`` bytes or more."""

    url: str
    least: int = LEAST_BYTES

    @classmethod
    def of(cls, url: str, least: int) -> Depot:
        """Check what a user says. Raises ValueError, TypeError."""
        if not isinstance(url, str) or not isinstance(least, int):
            raise TypeError("large_values is a URL, such as 'file:///shared/values', and large_values_from a number")
        parts = urlsplit(url)
        if not parts.scheme or (parts.scheme == "file" and (parts.netloc or not parts.path.startswith("/"))):
            raise ValueError(f"{url!r} is no URL of a place: write file:///shared/values, or a URL that fsspec knows")
        if parts.password is not None:
            raise ValueError("large_values would have a password in every row: have fsspec find it, in its config")
        if ".." in parts.path.split("/"):
            raise ValueError(f"{url!r} leads upwards: name the place itself")
        if least < 1:
            raise ValueError("large_values_from must be >= 1 byte")
        return cls(url.rstrip("/"), least)

    @classmethod
    def parse(cls, text: str) -> Depot:
        """Read what `__str__` has written."""
        least, _, url = text.partition(" ")
        return cls(url, int(least))

    def __str__(self) -> str:
        return f"{self.least} {self.url}"


class LentFile(NamedTuple):
    """A file of a folder: its name, its bytes, and their SHA-256."""

    file: str
    size: int
    sha256: str


class Whereabouts(NamedTuple):
    """A value in files of a folder: one that is the value in its codec, or else arrays and an ``inline`` pickle.

    ``inline`` is what is left of a call whose arrays are files, if that is small; otherwise it is the last file.
    """

    folder: str
    codec: str
    files: tuple[LentFile, ...]
    inline: bytes | None = None

    def __bytes__(self) -> bytes:
        facts = self._asdict() | {"files": [piece._asdict() for piece in self.files]}
        facts["inline"] = None if self.inline is None else base64.b64encode(self.inline).decode()
        return json.dumps({name: fact for name, fact in facts.items() if fact is not None}).encode()

    @classmethod
    def parse(cls, data: bytes) -> Whereabouts:
        """Read what a row has. Raises LostValueError for what is none."""
        with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            facts = json.loads(data)
            pieces = tuple(LentFile(**piece) for piece in facts["files"])
            inline = None if facts.get("inline") is None else base64.b64decode(facts["inline"], validate=True)
            made = cls(facts["folder"], facts["codec"], pieces, inline)
            if pieces and all(map(_is_ours, pieces)) and made.codec in CODECS and _FOLDER.search(made.folder):
                return made
        raise LostValueError("a row", "has no reference to a file")

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return sum(piece.size for piece in self.files) + len(self.inline or b"")


def _is_ours(piece: LentFile) -> bool:
    """Tell whether this may be one of our files: nothing else has such a name."""
    named = _FILE.fullmatch(piece.file)
    return named is not None and named[3] == piece.sha256 and type(piece.size) is int and piece.size >= 0


class Folder:
    """The folder of a jobset in a place."""

    def __init__(self, place: Depot, jobset: UUID) -> None:
        """Raises LargeValuesError where fsspec isn't there, or knows no such URL."""
        self.place = place
        self.url = f"{place.url}/workerbee-{jobset.hex}"
        self._files = files_of(self.url)
        #: Arguments of which this process has written the file: its name, and its key.
        self._written: Few[tuple[str, object]] = Few()

    def make(self, jobset_id: str, *, is_new: bool) -> None:
        """Make the folder if it ``is_new``, and see that it can be written to. Raises LargeValuesError."""
        with self._explained():
            if is_new:
                self._files.make()
            else:
                self._require()
            if self._files.key(MARK) is None:
                told = {"jobset": jobset_id, "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
                self._write(MARK, [json.dumps(told | {"what": "large values of a jobset of Workerbee"}).encode()])
        self.check()

    def check(self) -> None:
        """Raises LargeValuesError unless the folder is the one that was made, and can be written to."""
        with self._explained():
            self._require()
            draft = _draft()
            self._files.write(draft, [b""])
            self._files.remove(draft)

    def lender(self, job: int = 0, run: int = 0) -> FileLender:
        """Make what puts arguments, or the result of a job's run, here."""
        return FileLender(self, job, run)

    def put(self, parts: Sequence[memoryview | bytes], job: int = 0, run: int = 0) -> LentFile:
        """Store arguments, or the result of a run. Raises LargeValuesError if it can't be."""
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        name = f"r{job}-{run}-{digest.hexdigest()}" if job else f"a{digest.hexdigest()}"
        with self._explained():
            # Whatever has this name may have been changed, so only what was written here isn't written again.
            if job or (name, self._files.key(name)) not in self._written:
                self._write(name, parts)
                if not job:
                    self._written.add((name, self._files.key(name)))
        return LentFile(name, sum(map(len, parts)), digest.hexdigest())

    def sweep(self, recorded: Callable[[list[int]], set[tuple[int, int, str]]]) -> int:
        """Remove what killed processes have left, at most once a day. Returns how many files.

        ``recorded`` finds the results that rows of these jobs name, as (job, run, file).
        """
        with self._explained():
            ages = dict(self._files.ages())
            if ages.get(MARK, 0.0) < ORPHAN_SECONDS:
                return 0
            old = [name for name, age in ages.items() if age > ORPHAN_SECONDS]
            results = {
                name: (int(found[1]), int(found[2])) for name in old if (found := _FILE.fullmatch(name)) and found[1]
            }
            known = recorded(sorted({job for job, _ in results.values()})) if results else set()
            left = [name for name in old if _DRAFT.fullmatch(name)]
            left += [name for name, (job, run) in results.items() if (job, run, name) not in known]
            for name in left:
                self._files.remove(name)
            self._files.touch(MARK)
            return len(left)

    def remove(self) -> None:
        """Remove the folder with its files, as the jobset is dropped. Raises LargeValuesError if it can't be."""
        with self._explained():
            self._require()
            for _ in range(3):  # a runner may just have begun to write
                for name, _age in list(self._files.ages()):
                    if _FILE.fullmatch(name) or _DRAFT.fullmatch(name):
                        self._files.remove(name)
                self._files.remove(MARK)
                if self._files.discard():
                    return

    def size(self) -> int:
        """Count the bytes of the files. Raises LargeValuesError where they can't be seen."""
        with self._explained():
            self._require()
            return self._files.size()

    def _write(self, name: str, parts: Sequence[memoryview | bytes]) -> None:
        draft = _draft()
        try:
            self._files.write(draft, parts)
            self._files.rename(draft, name)
        except BaseException:
            with suppress(Exception):
                self._files.remove(draft)
            raise

    def _require(self) -> None:
        _require(self._files, self.url)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with explained(self.url):
            yield


class FileLender:
    """Puts large arguments, or the result of a run, into the files of a folder."""

    __slots__ = ("_folder", "_job", "_run", "apart", "least")
    codec = BLOB

    def __init__(self, folder: Folder, job: int, run: int) -> None:
        self._folder, self._job, self._run = folder, job, run
        self.least = folder.place.least
        # An array may be the argument of many calls; in a result it stays, so that the file can be read without us.
        self.apart = sys.maxsize if job else self.least

    def lend(self, codec: str, parts: Sequence[memoryview | bytes]) -> bytes:
        """Store the parts of a value, arrays first, and give its reference. Raises LargeValuesError."""
        n = 0 if self._job else next(n for n, part in enumerate(parts) if isinstance(part, bytes))
        put, rest = self._folder.put, parts[n:]
        files = [put([array]) for array in parts[:n]]
        if files and sum(map(len, rest)) < self.least:
            return bytes(Whereabouts(self._folder.url, codec, tuple(files), b"".join(rest)))
        return bytes(Whereabouts(self._folder.url, codec, (*files, put(rest, self._job, self._run))))


def recall(data: bytes) -> tuple[str, list[memoryview | bytes]]:
    """Fetch the codec of a value and its parts, arrays first, by the reference of a row whose signature holds.

    Raises LostValueError if a file is gone or changed, LargeValuesError if the folder can't be seen from here.
    """
    reference = Whereabouts.parse(data)
    pieces = [_read(reference.folder, piece) for piece in reference.files]
    value = pieces.pop() if reference.inline is None else reference.inline
    return reference.codec, [*(memoryview(piece) for piece in pieces), cast("bytes", value)]  # no copy is made of it


def _read(folder: str, piece: LentFile) -> bytearray:
    with explained(folder):
        found = files_of(folder).read(piece.file, piece.size)
        if found is None:
            _raise_lost(folder, piece)
        if hashlib.sha256(found).hexdigest() != piece.sha256:
            raise LostValueError(f"{folder}/{piece.file}", "was changed")
        return found


def look(data: bytes) -> Whereabouts:
    """Find the reference of a row whose signature holds, if there are such files. Raises as `recall`."""
    reference = Whereabouts.parse(data)
    with explained(reference.folder):
        files = files_of(reference.folder)
        for piece in reference.files:
            if files.length(piece.file) != piece.size:
                _raise_lost(reference.folder, piece)
    return reference


def _raise_lost(folder: str, piece: LentFile) -> NoReturn:
    """Raises LostValueError, or LargeValuesError if all of the folder can't be seen."""
    files = files_of(folder)
    _require(files, folder)
    is_there = files.length(piece.file) is not None
    raise LostValueError(f"{folder}/{piece.file}", "was changed" if is_there else "isn't there any more")


def _require(files: Files, url: str) -> None:
    """Raises LargeValuesError unless the folder is there."""
    if not files.is_there():
        raise LargeValuesError(url, "it isn't there")


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Raises LargeValuesError in the place of what a file system, local or fsspec's, says."""
    try:
        yield
    except (LargeValuesError, LostValueError):
        raise
    except OSError as error:
        raise LargeValuesError(url, error.strerror or str(error) or type(error).__name__) from error
    except Exception as error:
        raise LargeValuesError(url, f"{type(error).__name__}: {error}") from error


def _draft() -> str:
    return f".{secrets.token_hex(16)}"

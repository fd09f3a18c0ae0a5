"""The key of a user, and signatures by it.

Nothing that comes out of the database is unpickled or called unless a signature holds over what it is,
which jobset, job and run it belongs to, its codec, and its bytes. Who has the key can run code as its
owner; who can only write to the database can't.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from workerbee import places
from workerbee.errors import KeyFileError

#: Bytes of a signature: HMAC-SHA256 cut to half, which RFC 2104 (5) allows, to halve what each row carries.
MAC_BYTES = 16


class Key:
    """The secret of one user. Its ``fingerprint`` may be shown; the key is in no repr and no pickle."""

    def __init__(self, secret: bytes) -> None:
        # HMAC as RFC 2104 (2) defines it, with the key's two blocks hashed once: it is needed four times a job.
        block = secret.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))
        self.fingerprint = hashlib.sha256(b"workerbee key" + secret).hexdigest()[:16]

    @classmethod
    def load(cls) -> Key | None:
        """Load the key from ``WORKERBEE_KEY_FILE`` or the user's config directory; None without the file.

        Raises KeyFileError if the file can be read by others, or holds no key.
        """
        return cls.read(places.key())

    @classmethod
    def read(cls, path: Path) -> Key | None:
        """Read the key in this file; None without the file. Raises as `load` does."""
        try:
            with path.open(encoding="ascii") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read(1000).strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise KeyFileError(
                path, f"can't be read ({error}); restore it, or name another by WORKERBEE_KEY_FILE"
            ) from error
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyFileError(path, f"is open to others; run: chmod 600 {path}")
        try:
            secret = bytes.fromhex(text)
        except ValueError:
            secret = b""
        if len(secret) != 32:
            raise KeyFileError(path, "holds no key (64 hexadecimal digits); restore it, or remove it to make a new one")
        return cls(secret)

    @classmethod
    def load_or_make(cls) -> Key:
        """Load the key, made and written to its file if there is none yet. Raises as `load` does."""
        while (key := cls.load()) is None:
            path = places.key()
            try:
                _write(path, secrets.token_hex(32))
            except OSError as error:
                raise KeyFileError(path, f"can't be written ({error}); name another by WORKERBEE_KEY_FILE") from error
        return key

    def __repr__(self) -> str:
        return f"<Key {self.fingerprint}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a key can't be pickled")

    def digests(self, head: bytes, messages: Iterable[bytes]) -> list[str]:
        """Make the signatures, in hexadecimal, of ``head`` followed by each of these."""
        start = self._inner.copy()
        start.update(head)
        signed = []
        for message in messages:  # a million at a time: everything at hand
            inner, outer = start.copy(), self._outer.copy()
            inner.update(message)
            outer.update(inner.digest())
            signed.append(outer.hexdigest()[: 2 * MAC_BYTES])
        return signed

    def digest(self, head: bytes, data: bytes | memoryview) -> bytes:
        """Make the signature of ``head`` followed by ``data``."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(head)
        inner.update(data)
        outer.update(inner.digest())
        return outer.digest()[:MAC_BYTES]


def keep() -> None:
    """Keep a copy of the key beside the embedded server's data; from there it comes back if its own file is lost.

    Data that outlive a cleaned home directory, or a container's, would be of no use without it.
    """
    here, copy = places.key(), places.kept_key()
    for source, target in ((copy, here), (here, copy)):
        with suppress(OSError):  # there is nothing to copy, or it is there already, or can't be written: see `load`
            if not target.exists() and Key.read(source) is not None:
                _write(target, source.read_text("ascii").strip())


def whereabouts(fingerprint: str) -> Path | None:
    """Find the file here that holds the key with this fingerprint; None if there is none."""
    present = (places.key(), places.kept_key())
    for path in (*present, *(_aside(path, fingerprint) for path in present)):
        with suppress(KeyFileError):
            key = Key.read(path)
            if key is not None and key.fingerprint == fingerprint:
                return path
    return None


def rotate() -> tuple[Key, Path]:
    """Replace this user's key, and its copy, by a new one; and the file beside it in which the old one stays.

    Raises KeyFileError if there is none, or its file can't be written.
    """
    path, old = places.key(), Key.load()
    if old is None:
        raise KeyFileError(path, "isn't there yet; the first client makes a key")
    aside, secret = _aside(path, old.fingerprint), secrets.token_hex(32)
    try:
        _write(aside, path.read_text("ascii").strip())
        for present in dict.fromkeys((path, places.kept_key())):
            if present == path or whereabouts(old.fingerprint) == present:
                present.unlink()
                _write(present, secret)
    except OSError as error:
        raise KeyFileError(path, f"can't be replaced ({error})") from error
    return Key(bytes.fromhex(secret)), aside


def _aside(path: Path, fingerprint: str) -> Path:
    return path.with_name(f"{path.name}.{fingerprint}")


def _write(path: Path, secret: str) -> None:
    """Write a key; if several processes do, the first one's stays."""
    places.make(path.parent)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        with suppress(FileExistsError):
            os.link(draft, path)  # unlike a rename, never replaces another's key
    finally:
        draft.unlink()


class Signer:
    """Signs and verifies for one jobset: calls, functions, and how jobs end."""

    def __init__(self, key: Key, jobset: UUID) -> None:
        self._key = key
        self._prefix = {
            kind: b"workerbee\0%s\0%s" % (kind.encode(), jobset.bytes)
            for kind in ("call", "function", "result", "error")
        }

    def sign_call(self, job: int, codec: str, function: bytes, data: bytes) -> bytes:
        """Sign a call. The signature is good for the function with this digest alone, in any run of the job."""
        return self.sign("call", job, 0, codec, function, data)

    def verify_call(self, mac: bytes | None, job: int, codec: str, function: bytes, data: bytes) -> bool:
        return self.verify(mac, "call", job, 0, codec, function, data)

    def sign_function(self, codec: str, digest: bytes, body: bytes) -> bytes:
        """Sign a function's record, by its digest, which is of all that it says."""
        return self.sign("function", 0, 0, codec, digest, body)

    def verify_function(self, mac: bytes | None, codec: str, digest: bytes, body: bytes) -> bool:
        return self.verify(mac, "function", 0, 0, codec, digest, body)

    def sign_end(self, job: int, run: int, codec: str, data: bytes, *, is_value: bool) -> bytes:
        """Sign a job's value, or the record of its error."""
        return self.sign("result" if is_value else "error", job, run, codec, b"", data)

    def verify_end(self, mac: bytes | None, job: int, run: int, codec: str, data: bytes, *, is_value: bool) -> bool:
        return self.verify(mac, "result" if is_value else "error", job, run, codec, b"", data)

    def sign(self, kind: str, job: int, run: int, codec: str, extra: bytes, data: bytes | memoryview) -> bytes:
        # Every field before the data is of fixed size or framed, so that no two messages read the same.
        head = b"%s%d,%d,%s,%d\0%s" % (self._prefix[kind], job, run, codec.encode(), len(extra), extra)
        return self._key.digest(head, data)

    def verify(
        self,
        mac: bytes | None,
        kind: str,
        job: int,
        run: int,
        codec: str,
        extra: bytes,
        data: bytes | memoryview,
    ) -> bool:
        return mac is not None and hmac.compare_digest(mac, self.sign(kind, job, run, codec, extra, data))

    def verify_all(self, macs: Sequence[str], kind: str, codec: str, values: Iterable[tuple[int, int, bytes]]) -> bool:
        """Tell whether the signatures (hexadecimal) of all values (job, run, data) hold, as `verify` has it."""
        form = b"%%d,%%d,%s,0\0%%s" % codec.encode()
        signed = self._key.digests(self._prefix[kind], map(form.__mod__, values))
        return hmac.compare_digest(",".join(signed), ",".join(macs))

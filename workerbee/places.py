"""Where Workerbee's own files are: the user's key, and the data of the embedded server.

WORKERBEE_KEY_FILE and WORKERBEE_HOME name them; else they are in the user's directories. A container's user may have
none that can be written to, nor an entry in /etc/passwd: then both are in a private directory of /var/tmp.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import platformdirs

from workerbee.errors import EmbeddedServerError

_MAKESHIFT = Path("/var/tmp")  # noqa: S108 (verified in makeshift)


def home() -> Path:
    """Find the directory under which the embedded server's data are, as an absolute path without symlinks."""
    named = os.environ.get("WORKERBEE_HOME")
    if named:
        return Path(os.path.expanduser(named)).resolve()  # noqa: PTH111 (which raises without a home)
    usual = Path("/var/lib/workerbee") if os.geteuid() == 0 else _of_user(platformdirs.user_data_path)
    return usual.resolve() if _is_usable(usual) else makeshift()


def key() -> Path:
    """Find the file of the user's key."""
    named = os.environ.get("WORKERBEE_KEY_FILE")
    if named:
        return Path(named)
    usual = _of_user(platformdirs.user_config_path) / "key"
    return usual if _is_usable(usual) else home() / "key"


def kept_key() -> Path:
    """Give the copy of the key beside the embedded server's data, which are of no use without it."""
    return home() / "key"


def make(directory: Path) -> None:
    """Make a directory of ours and its parents; existing ones aren't changed.

    It is private, but root's can be entered by others, because PostgreSQL, which can't run as root, has its data there.
    """
    if directory.is_dir():
        return
    make(directory.parent)
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
        only_keys = directory == key().parent != home()
        if os.geteuid() == 0 and not only_keys:
            directory.chmod(0o755)


def _of_user(find: Callable[[str], Path]) -> Path:
    """Give the user's directory of this kind; a relative path if there is no home directory."""
    try:
        return find("workerbee")
    except RuntimeError:  # older versions give a path that begins with ~
        return Path("~")


def _is_usable(path: Path) -> bool:
    """Tell whether it is there or could be made."""
    # Path.exists would raise if a directory is closed to us.
    nearest = next((place for place in (path, *path.parents) if os.path.exists(place)), path)  # noqa: PTH110
    return path.is_absolute() and (nearest == path or os.access(nearest, os.W_OK | os.X_OK))


def makeshift() -> Path:
    """Give the private directory of a user without a home. The system may clear it some day.

    Raises EmbeddedServerError if somebody else was there first.
    """
    directory = _MAKESHIFT / f"workerbee-{os.geteuid()}"
    with suppress(FileNotFoundError):
        status = directory.lstat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise EmbeddedServerError(
                f"there is no home directory to write to, and {directory} isn't ours alone; name a place for the data "
                "by WORKERBEE_HOME"
            )
    return directory

"""The waiting of a bee's one thread: on all its descriptors at once, each with its handler."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from contextlib import suppress

from workerbee.wake import Wake


class Ears:
    """Waits for descriptors that are ready, and calls their handlers. Threads and signal handlers may `wake` it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}  # by descriptor
        self._has_news = False
        self._wake = Wake()
        self.watch(self._wake.fileno(), self._wake.clear)

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Call the handler whenever the descriptor is ready to be read."""
        self._epoll.register(fd, select.EPOLLIN)
        self._handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        """Stop watching this descriptor, if it was watched."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def watch_for_room(self, fd: int, is_wanted: bool) -> None:  # noqa: FBT001
        """Begin or stop calling its handler also whenever it can be written to."""
        if fd in self._handlers:
            self._epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if is_wanted else 0))

    def wake(self) -> None:
        """End the wait; for other threads and signal handlers."""
        self._wake.set()

    def wait(self, timeout: float, fd: int, before: Callable[[], float], *, writing: bool, only: bool) -> bool:
        """Wait until ``fd`` is ready, or for ``timeout`` seconds. Returns whether it is ready.

        Without ``only``, the wait also ends when a handler was called, even if that was during an earlier wait with
        ``only``. ``before`` is called before each look at the descriptors, and returns in how many seconds to call it
        again.
        """
        deadline = time.monotonic() + timeout
        is_ready = False
        if fd >= 0:
            self._epoll.register(fd, select.EPOLLOUT if writing else select.EPOLLIN)
        try:
            while not is_ready and (only or not self._has_news):
                due_in = before()
                left = deadline - time.monotonic()
                for heard, _ in self._epoll.poll(max(0.0, min(left, due_in))):
                    if heard == fd:
                        is_ready = True
                    elif handler := self._handlers.get(heard):  # else another handler has just removed it
                        handler()
                        self._has_news = True
                if left <= 0:
                    break
        finally:
            if fd >= 0:
                with suppress(OSError):  # it was closed meanwhile
                    self._epoll.unregister(fd)
        self._has_news = self._has_news and only
        return is_ready

    def close(self) -> None:
        self._epoll.close()
        self._wake.close()

"""A TCP proxy on loopback that fails on command: between a client and PostgreSQL, or any server.

Directions are named by who speaks: ``"client"`` is what the client sends, ``"server"`` what comes back.
A fault may be set from any thread at any time; when its method returns, it holds.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from psycopg2 import extensions

from tests.servers import free_port

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")
Direction = Literal["client", "server"]
Side = Literal["both", "client", "server"]

#: PostgreSQL's ReadyForQuery: it ends the answer to each statement.
_READY = b"Z\0\0\0\x05"
_CHUNK = 65536
#: The longest pattern that is found though it comes in two reads.
_TAIL = 4096


@dataclass(eq=False)
class Trap:
    """A cut that waits for its moment; `wait` for it."""

    direction: Direction
    side: Side
    pattern: bytes = b""
    n_bytes: int = 0
    before: bool = False
    times: int = 1
    sprung: threading.Event = field(default_factory=threading.Event)

    def wait(self, timeout: float = 30) -> None:
        """Return when the connection has been cut; AssertionError if that doesn't come."""
        assert self.sprung.wait(timeout), f"not within {timeout:g} s: the cut by {self}"

    def offset(self, earlier: bytes, data: bytes) -> int | None:
        """How much of ``data``, which follows ``earlier``, may still pass; None: all, and it goes on."""
        if not self.pattern:
            self.n_bytes -= len(data)
            return len(data) + self.n_bytes if self.n_bytes <= 0 else None
        tail = earlier[max(0, len(earlier) - len(self.pattern) + 1) :]
        at = (tail + data).find(self.pattern)
        if at < 0:
            return None
        return max(0, at - len(tail)) if self.before else len(data)


class FaultProxy:
    """Forwards connections from 127.0.0.1:``port`` to a target; a context manager."""

    def __init__(self, target_host: str, target_port: int) -> None:
        self.target = (target_host, target_port)
        self.port = free_port()
        self.traps: list[Trap] = []
        self.delay = 0.0
        self.rate = float("inf")
        self.n_taken = 0  # how many connections have come in so far, whatever became of them
        self._links: set[_Link] = set()
        self._listener: socket.socket | None = None
        started: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(started)), name="fault-proxy")
        self._thread.start()
        started.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def dsn(self, dsn: str) -> str:
        """The same connection string, but through this proxy."""
        there: dict[str, Any] = extensions.parse_dsn(dsn)
        there.pop("hostaddr", None)
        return str(extensions.make_dsn(**{**there, "host": "127.0.0.1", "port": self.port}))

    @property
    def connections(self) -> int:
        """How many connections are open from end to end."""
        return self._in_loop(self._count())

    def latency(self, seconds: float) -> None:
        """Delay what comes from now on by so much in each direction; a round trip takes twice that."""
        self.delay = seconds

    def throughput(self, bytes_per_second: float) -> None:
        """Forward no faster than this in each direction of a connection."""
        self.rate = bytes_per_second

    def stall(self) -> None:
        """Forward nothing more, and keep every connection open; new ones are taken too."""
        self._in_loop(self._flow(False))

    def resume(self) -> None:
        """End a `stall`: what was held back is forwarded."""
        self._in_loop(self._flow(True))

    def refuse(self) -> None:
        """Refuse new connections; those that are open stay."""
        self._in_loop(self._listen(False))

    def accept(self) -> None:
        """End a `refuse`."""
        self._in_loop(self._listen(True))

    def cut(self, side: Side = "both") -> None:
        """Reset all connections now; what is on its way in them is lost.

        With ``side="client"`` only the client is told: the server goes on believing in a client that says
        nothing, as after a network partition; ``side="server"`` is the reverse. Such a half stays open
        until the next `cut`, or the end.
        """
        self._in_loop(self._cut(side))

    def cut_after(self, n_bytes: int, direction: Direction = "client", side: Side = "both") -> Trap:
        """Cut the connection in which the ``n_bytes``-th byte from now passes, right after that byte."""
        return self._arm(Trap(direction, side, n_bytes=n_bytes))

    def cut_on(
        self,
        pattern: bytes,
        direction: Direction = "client",
        when: Literal["before", "after"] = "before",
        times: int = 1,
        side: Side = "both",
    ) -> Trap:
        """Cut the connection in which ``pattern`` is sent, the first ``times`` times.

        ``before``: it doesn't get through. ``after``: it does, with all that was sent together with it.
        If it was the client's, PostgreSQL then also finishes the statement, but the answer doesn't get
        through: the client can't know what became of its COMMIT.
        """
        assert 0 < len(pattern) <= _TAIL
        return self._arm(Trap(direction, side, pattern=pattern, before=when == "before", times=times))

    def close(self) -> None:
        """Reset all connections and end the thread."""
        if self._thread.is_alive():
            self._in_loop(self._end())
            self._thread.join()

    def _arm(self, trap: Trap) -> Trap:
        async def arm() -> None:
            self.traps.append(trap)

        self._in_loop(arm())
        return trap

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    # In the proxy's thread

    async def _run(self, started: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        self.flowing = asyncio.Event()
        self.flowing.set()
        try:
            await self._listen(True)
        except OSError as error:
            started.set_exception(error)
            return
        started.set_result(None)
        await self._ending.wait()
        await self._listen(False)
        await self._cut("both")

    async def _end(self) -> None:
        self._ending.set()

    async def _count(self) -> int:
        return sum(link.whole for link in self._links)

    async def _flow(self, flowing: bool) -> None:
        if flowing:
            self.flowing.set()
        else:
            self.flowing.clear()

    async def _listen(self, listening: bool) -> None:
        if listening and self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
            self._listener.setblocking(False)
            self._loop.add_reader(self._listener, self._take, self._listener)
        elif not listening and self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _take(self, listener: socket.socket) -> None:
        with suppress(OSError):  # the client may have gone already
            link = _Link(self, listener.accept()[0])
            self.n_taken += 1
            self._links.add(link)
            link.task = self._loop.create_task(link.serve())

    async def _cut(self, side: Side) -> None:
        await asyncio.gather(*(link.cut(side) for link in self._links.copy()))

    def forget(self, link: _Link) -> None:
        self._links.discard(link)


class _Link:
    """One client's connection and the one made for it to the target; lives in the proxy's thread."""

    task: asyncio.Task[None]

    def __init__(self, proxy: FaultProxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[str, socket.socket] = {"client": client, "server": socket.socket()}
        for end in self._sockets.values():
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._silenced: Trap | None = None  # whose answer the client must not hear
        self._answer = b""
        self.whole = True

    async def serve(self) -> None:
        """Forward until both sides have ended."""
        client, server = self._sockets["client"], self._sockets["server"]
        pumps: list[asyncio.Task[None]] = []
        try:
            await self._loop.sock_connect(server, self._proxy.target)
            pumps = [*self._pumps("client", client, server), *self._pumps("server", server, client)]
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
            broken = any(pump.exception() for pump in done)
        except OSError:
            broken = True
        finally:
            # A socket may be closed only when nobody waits for it any more.
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        self._close(*self._sockets, reset=broken)

    async def cut(self, side: Side) -> None:
        """Reset one side or both; the other stays open, and nobody listens to it."""
        if self.whole:
            self.whole = False
            self.task.cancel()
        await asyncio.wait([self.task])
        self._close(*(self._sockets if side == "both" else [side]), reset=True)

    def _close(self, *sides: str, reset: bool) -> None:
        for side in sides:
            end = self._sockets.pop(side, None)
            if end is not None:
                if reset:
                    with suppress(OSError):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()
        if not self._sockets:
            self.whole = False
            self._proxy.forget(self)

    def _pumps(
        self, direction: Direction, source: socket.socket, sink: socket.socket
    ) -> tuple[asyncio.Task[None], asyncio.Task[None]]:
        under_way: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(64)
        return (
            self._loop.create_task(self._read(direction, source, sink, under_way)),
            self._loop.create_task(self._write(sink, under_way)),
        )

    async def _read(
        self,
        direction: Direction,
        source: socket.socket,
        sink: socket.socket,
        under_way: asyncio.Queue[tuple[float, bytes | None]],
    ) -> None:
        earlier = b""
        data = b"?"
        while data:
            await self._proxy.flowing.wait()
            data = await self._loop.sock_recv(source, _CHUNK)
            await self._proxy.flowing.wait()
            passing, trap = self._judged(direction, earlier, data)
            earlier = (earlier + data)[-_TAIL:]
            due = self._loop.time() + self._proxy.delay
            if passing:
                await under_way.put((due, passing))
            if trap is not None:
                await under_way.join()
                await _delivered(sink)
                await self._spring(trap)
            if not data:
                await under_way.put((due, None))

    async def _write(self, sink: socket.socket, under_way: asyncio.Queue[tuple[float, bytes | None]]) -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            await self._proxy.flowing.wait()
            if data is None:
                sink.shutdown(socket.SHUT_WR)
                return
            await self._loop.sock_sendall(sink, data)
            await asyncio.sleep(len(data) / self._proxy.rate)
            under_way.task_done()

    def _judged(self, direction: Direction, earlier: bytes, data: bytes) -> tuple[bytes, Trap | None]:
        """What of ``data`` may pass, and the trap that cuts the connection behind it."""
        if direction == "server" and self._silenced:
            self._answer += data
            return b"", self._silenced if _READY in self._answer or not data else None
        if not data:
            return b"", None
        offsets = [(trap.offset(earlier, data), trap) for trap in self._proxy.traps if trap.direction == direction]
        sprung = [(offset, trap) for offset, trap in offsets if offset is not None]
        if not sprung:
            return data, None
        offset, trap = min(sprung, key=lambda found: found[0])
        trap.times -= 1
        if trap.times <= 0:
            self._proxy.traps.remove(trap)
        if direction == "client" and trap.pattern and not trap.before:
            self._silenced = trap
            return data, None
        return data[:offset], trap

    async def _spring(self, trap: Trap) -> None:
        async def cut() -> None:
            await self.cut(trap.side)
            trap.sprung.set()

        # Not by this task itself: the cut waits for its end.
        self._springing = self._loop.create_task(cut())
        await asyncio.Event().wait()


async def _delivered(sink: socket.socket) -> None:
    """Wait until the other end's kernel has it all: a reset throws away what is still in ours."""
    if sys.platform != "linux":
        await asyncio.sleep(0.05)
        return
    for _ in range(1000):
        (waiting,) = struct.unpack("i", fcntl.ioctl(sink, termios.TIOCOUTQ, b"\0" * 4))
        if not waiting:
            return
        await asyncio.sleep(0.001)

"""A small TCP proxy that can be slow, silent, or rude."""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from deploy.plan import HOST

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Proxy:
    """Stands before one port. ``delay`` holds each piece for so many seconds, ``resets`` is the share of pieces that end their connection."""

    target: int
    port: int = 0
    delay: float = 0.0
    resets: float = 0.0
    passed: int = 0
    """Pieces that went through."""
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _rng: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - which connection is reset

    @classmethod
    @contextlib.asynccontextmanager
    async def before(cls, target: int) -> AsyncIterator["Proxy"]:
        proxy = cls(target)
        proxy._open.set()
        server = await asyncio.start_server(proxy._serve, HOST, 0)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            proxy._open.set()
            server.close()

    @contextlib.asynccontextmanager
    async def cut(self) -> AsyncIterator[None]:
        """Inside nothing passes and nobody is told."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(HOST, self.target)
        except OSError:
            writer.transport.abort()
            return
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        for one in (writer, back):
            one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            await self._open.wait()
            if self.delay:
                await asyncio.sleep(self.delay)
            if self._rng.random() < self.resets:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                raise ConnectionResetError
            writer.write(piece)
            await writer.drain()
            self.passed += 1
        raise ConnectionResetError

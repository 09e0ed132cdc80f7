"""The HTTP connections to one origin: how many there may be, and which request gets the next one."""

import asyncio
import os
import ssl
from collections import deque
from typing import Final

from gateway.errors import CallscopeError
from gateway.http1.client import Connection, ConnectionLimits

MAX_CONNECTIONS: Final = 512
DEFAULT_LIMITS: Final = ConnectionLimits()


class ConnectError(CallscopeError):
    """No connection could be made: the name, the address, the port, or TLS."""


def _reason(error: OSError) -> str:
    """The system's text for it: asyncio's own texts do not say why."""
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno).lower()
    return error.strerror or str(error) or "closed while it was being made"


class Pool:
    """Connections to one origin; the one used last is taken first."""

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        *,
        max_connections: int = MAX_CONNECTIONS,
        limits: ConnectionLimits = DEFAULT_LIMITS,
    ) -> None:
        self.host = host
        self.port = port
        self._tls = tls
        self._max = max_connections
        self._limits = limits
        self._count = 0
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._waiters: deque[asyncio.Future[None]] = deque()

    def take(self) -> Connection | None:
        """A kept connection that is not in use, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_fresh():
                return connection
            connection.abort()
        return None

    async def connect(self) -> Connection:
        """A new connection, or, if there are as many as there may be, the next one that is released.

        Raises:
            ConnectError: it says what failed, for a person.
        """
        waiter: asyncio.Future[None] | None = None
        while self._count >= self._max:
            again = waiter is not None  # it had been woken, and another was faster: it keeps its place in the queue
            waiter = asyncio.get_running_loop().create_future()
            if again:
                self._waiters.appendleft(waiter)
            else:
                self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if not waiter.cancelled():  # it was this one's turn: the next one takes it
                    self._wake()
                raise
            connection = self.take()
            if connection is not None:
                return connection
        return await self._connect()

    def release(self, connection: Connection) -> None:
        """Give a connection back; one that is not reusable is closed."""
        if connection.unfinished:
            connection.linger(self.release)
            return
        if not connection.reusable:
            connection.abort()
            return
        connection.rest()
        self._idle.append(connection)
        self._wake()

    def close(self) -> None:
        """Close every connection, also those in use."""
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        self._count += 1
        try:
            async with asyncio.timeout(self._limits.connect_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop, self._closed, self._limits),
                    self.host,
                    self.port,
                    ssl=self._tls,
                    server_hostname=self.host if self._tls else None,
                )
        except BaseException as error:
            self._count -= 1
            self._wake()
            where = f"{self.host}:{self.port}"
            if isinstance(error, TimeoutError):
                raise ConnectError(f"no connection to {where} within {self._limits.connect_s:g} s") from error
            if isinstance(error, ssl.SSLError):
                reason = getattr(error, "verify_message", None) or error.reason
                raise ConnectError(f"TLS with {where} failed: {reason}") from error
            if isinstance(error, OSError):
                raise ConnectError(f"no connection to {where}: {_reason(error)}") from error
            raise
        self._open.add(connection)
        if connection.lost:  # already, when `_closed` did not know it yet
            self._closed(connection)
        return connection

    def _closed(self, connection: Connection) -> None:
        if connection in self._open:
            self._open.remove(connection)
            self._count -= 1
            self._wake()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

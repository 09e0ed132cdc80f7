"""Connections to PostgreSQL: psycopg's pool, which says why it has no connection, and a limit on every wait."""

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

import psycopg
from psycopg import conninfo
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from gateway.database_url import shown
from gateway.errors import LedgerUnavailableError, StartError
from gateway.ledger.driver import QueryTimeoutError

logger = logging.getLogger(__name__)
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # it warns of each attempt; we warn of each outage

MAX_CONNECTIONS: Final = 20
MAX_IDLE_S: Final = 60.0
CONNECT_S: Final = 5
CHECK_S: Final = 3.0
"""For an idle connection to show that it still works."""
WAIT_S: Final = 15.0
"""For a free connection while all of them are in use."""
_FAILURE_POLL_S: Final = 0.1

_SETTINGS: Final[dict[str, str | int]] = {
    "application_name": "callscope",
    "connect_timeout": CONNECT_S,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    # A query sorts a month's durations: in memory if it can, and without compiling, which takes longer than it saves.
    # The transaction of a client that was cut off must end soon, too: it holds what the next one waits for.
    "options": "-c work_mem=64MB -c jit=off -c timezone=UTC -c idle_in_transaction_session_timeout=30000"
    " -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3 -c tcp_user_timeout=10000"
    " -c client_connection_check_interval=5000",
}
"""Defaults: the URL overrides them. PostgreSQL 14 is the oldest that knows them all."""

OUTAGES: Final = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError)
"""What the server, the network or the disk does; any other error of psycopg is a defect of ours, and is raised."""

_TEMPORARY: Final = (
    "starting up",
    "shutting down",
    "recovery mode",
    "accepting connections",
    "too many",
    "connection slots",
    "due to timeout",
    "due to administrator command",
    "server login has been failing",
    "pooler",
)
"""In the message of a server, or of a pooler in front of it, that rejects connections now, but not for ever."""


class PostgresPool:
    """Connections in autocommit mode. `prepare` is called with each new one; all times are in seconds."""

    def __init__(
        self,
        url: str,
        *,
        prepare: Callable[[psycopg.Connection], None],
        connect_s: int = CONNECT_S,
        check_s: float = CHECK_S,
    ) -> None:
        self._url = url
        self._prepare = prepare
        self._check_s = check_s
        self._failure: psycopg.Error | StartError | LedgerUnavailableError | None = None
        self._failed_at = float("-inf")
        given = conninfo.conninfo_to_dict(url)
        settings = {**_SETTINGS, "connect_timeout": connect_s}
        pool = self

        class ReportingConnection(psycopg.Connection[Any]):
            """Tells our pool why a connection failed: psycopg's pool connects in a thread, and only logs it."""

            @classmethod
            def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
                with pool._noting_failure():
                    return super().connect(conninfo, **kwargs)

        self._pool: ConnectionPool[psycopg.Connection] = ConnectionPool(
            conninfo.make_conninfo(url, **{name: value for name, value in settings.items() if name not in given}),
            connection_class=ReportingConnection,
            kwargs={"autocommit": True, "prepare_threshold": None},
            min_size=0,
            max_size=MAX_CONNECTIONS,
            max_idle=MAX_IDLE_S,
            reconnect_timeout=0,  # the next caller tries again
            configure=self._configure,
            check=self._check,
            open=True,
            name="ledger",
        )

    def try_once(self) -> None:
        """Connect, and log it if the server cannot be reached.

        Raises:
            StartError: it can be reached, and rejects us.
        """
        try:
            with self.connection():
                pass
        except LedgerUnavailableError as error:
            if isinstance(error.__cause__, StartError):
                raise StartError(f"{shown(self._url)}: {error}") from error
            if _is_rejection(error):
                raise StartError(
                    f"{shown(self._url)}: {error}; set ledger to a database that this user may write"
                ) from error
            logger.warning("%s; it is tried again, and until then calls wait in the journal", error)

    @contextlib.contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        """A connection for one thread; it is kept if it still works at the end.

        Raises:
            LedgerUnavailableError: the server does not answer, or no connection is free.
        """
        connection = self._get()
        try:
            yield connection
        finally:
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.close()
            self._pool.putconn(connection)

    def _get(self) -> psycopg.Connection:
        began = time.monotonic()
        while True:
            try:
                return self._pool.getconn(timeout=_FAILURE_POLL_S)
            except PoolTimeout:
                if self._failure is not None and self._failed_at >= began:
                    raise unavailable(self._failure) from self._failure
                if time.monotonic() - began > WAIT_S:
                    busy = self._pool.get_stats().get("pool_size", 0) >= MAX_CONNECTIONS
                    why = f"all {MAX_CONNECTIONS} connections are in use" if busy else "it is still connecting"
                    raise LedgerUnavailableError(f"the ledger does not answer: {why}") from None
            except PoolClosed:
                raise LedgerUnavailableError("the ledger is closed") from None

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.Error, StartError, LedgerUnavailableError) as error:
            self._failure, self._failed_at = error, time.monotonic()
            raise

    def _configure(self, connection: psycopg.Connection) -> None:
        with self._noting_failure():
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()  # psycopg's pool does not
                raise

    def _check(self, connection: psycopg.Connection) -> None:
        try:
            with cut_after(self._check_s, connection):
                connection.execute("")
        except (psycopg.Error, OSError):
            self._pool.drain()  # the others are as old, and to check each of them would take as long
            raise

    def close(self) -> None:
        """Keep no connection any more; those in use are closed when they are given back."""
        self._pool.close(timeout=0)


@contextlib.contextmanager
def cut_after(seconds: float, connection: psycopg.Connection) -> Iterator[None]:
    """Shut the connection's socket down if the block takes longer, whatever it waits for.

    The server's own timeouts do not reach a client that was cut off from it, nor do TCP's while something between the
    two still acknowledges.
    """
    descriptor = os.dup(connection.fileno())
    watchdog = threading.Timer(seconds, _shut, (descriptor,))
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()
        watchdog.join()
        os.close(descriptor)


def _shut(descriptor: int) -> None:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


def _is_rejection(error: LedgerUnavailableError) -> bool:
    """Whether the server said no, for good: to an unknown user, or to one that may not create the tables."""
    text = str(error)
    mistaken = isinstance(error.__cause__, psycopg.Error) and not isinstance(error.__cause__, OUTAGES)
    return mistaken or ("FATAL" in text and not any(words in text for words in _TEMPORARY))


def unavailable(error: psycopg.Error | StartError | LedgerUnavailableError) -> LedgerUnavailableError:
    """The outage as the ledger's readers and writers know it."""
    if isinstance(error, psycopg.errors.QueryCanceled):
        return QueryTimeoutError()
    if isinstance(error, psycopg.Error):
        return LedgerUnavailableError(f"the ledger does not answer: {' '.join(str(error).split())}")
    return LedgerUnavailableError(str(error))

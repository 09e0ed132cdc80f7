"""Connections to PostgreSQL: kept while they are good, made when they are needed, cut when they say nothing."""

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import psycopg
from psycopg import conninfo, errors

from gateway.database_url import shown
from gateway.errors import LedgerUnavailableError, StartError
from gateway.ledger.driver import QueryTimeoutError

logger = logging.getLogger(__name__)

KEPT: Final = 4
"""Connections that wait for the next query."""
FRESH_S: Final = 1.0
"""One that has waited for longer is asked whether it still works."""
ASK_S: Final = 3.0

_SETTINGS: Final[dict[str, str | int]] = {
    "application_name": "callscope",
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    # A question sorts a month's durations: in memory if it can, and not by code that takes longer to compile.
    # A transaction whose client was cut off must end soon, too: it holds what the next one waits for.
    "options": "-c work_mem=64MB -c jit=off -c timezone=UTC -c idle_in_transaction_session_timeout=30000"
    " -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3 -c tcp_user_timeout=10000"
    " -c client_connection_check_interval=5000",
}
"""What the URL says goes before these. PostgreSQL 14 is the oldest that knows them all."""

OUTAGES: Final = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError)
"""What the server, the network or the disk does; every other error of psycopg's is a mistake of ours, and says so."""

_NOT_YET: Final = (
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
"""What a server, or a pooler before it, says that refuses now, and will not later."""


class Connections:
    """A stack: the one that was used last is used next."""

    def __init__(self, url: str, *, prepare: Callable[[psycopg.Connection], None]) -> None:
        self._url = url
        self._prepare = prepare
        self._lock = threading.Lock()
        self._idle: list[tuple[psycopg.Connection, float]] = []
        self._closed = False

    def try_once(self) -> None:
        """Connect, and log it if the server cannot be reached.

        Raises:
            StartError: it can be, and refuses.
        """
        try:
            with self.one():
                pass
        except LedgerUnavailableError as error:
            place = shown(self._url)
            if isinstance(error.__cause__, StartError):
                raise StartError(f"{place}: {error}") from error
            if _refuses(error):
                raise StartError(f"{place}: {error}; set ledger to a database that this user may write") from error
            logger.warning("%s; it is tried again, and until then calls wait in the journal", error)

    @contextlib.contextmanager
    def one(self) -> Iterator[psycopg.Connection]:
        """A connection in autocommit mode, for one thread; it is kept if it still works at the end.

        Raises:
            LedgerUnavailableError: there is none to be had.
        """
        connection = self._take()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def _take(self) -> psycopg.Connection:
        while True:
            with self._lock:
                if self._closed:
                    raise LedgerUnavailableError("the ledger is closed")
                if not self._idle:
                    break
                connection, since = self._idle.pop()
            if time.monotonic() - since < FRESH_S or _works(connection):
                return connection
            connection.close()
            self._forget()  # the others have waited for longer, and asking each of them takes its time
        return self._connect()

    def _forget(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def _connect(self) -> psycopg.Connection:
        try:
            given = conninfo.conninfo_to_dict(self._url)
            settings = {name: value for name, value in _SETTINGS.items() if name not in given}
            whole = conninfo.make_conninfo(self._url, **settings)
            connection = psycopg.connect(whole, autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            raise unavailable(error) from error
        try:
            self._prepare(connection)
        except LedgerUnavailableError:
            connection.close()
            raise
        except (StartError, psycopg.Error) as error:  # found at the start it ends the start; later, it is an outage
            connection.close()
            raise unavailable(error) from error
        return connection

    def _give_back(self, connection: psycopg.Connection) -> None:
        idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with self._lock:
            if idle and not self._closed and len(self._idle) < KEPT:
                self._idle.append((connection, time.monotonic()))
                return
        connection.close()

    def close(self) -> None:
        """Keep none any more."""
        self._closed = True
        self._forget()


@contextlib.contextmanager
def cut_after(seconds: float, connection: psycopg.Connection) -> Iterator[None]:
    """Shut the connection's socket down when the block takes longer, whatever it waits for.

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


def _works(connection: psycopg.Connection) -> bool:
    try:
        with cut_after(ASK_S, connection):
            connection.execute("select 1")
    except (psycopg.Error, OSError):
        return False
    return True


def _refuses(error: LedgerUnavailableError) -> bool:
    """Whether it was the server that said no: it does so to who is unknown, and to who may not make the tables."""
    text = str(error)
    mistaken = isinstance(error.__cause__, psycopg.Error) and not isinstance(error.__cause__, OUTAGES)
    return mistaken or ("FATAL" in text and not any(words in text for words in _NOT_YET))


def unavailable(error: psycopg.Error | StartError) -> LedgerUnavailableError:
    """The outage as the ledger's readers and writers know it."""
    if isinstance(error, StartError):
        return LedgerUnavailableError(str(error))
    if isinstance(error, errors.QueryCanceled):
        return QueryTimeoutError()
    return LedgerUnavailableError(f"the ledger does not answer: {' '.join(str(error).split())}")

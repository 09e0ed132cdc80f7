"""What a reader is told while the ledger is away. Why it is may have addresses in it, and is for the log."""

import contextlib
import logging
from collections.abc import Iterator

from gateway.analytics.http_errors import unavailable
from gateway.errors import LedgerUnavailableError
from gateway.ledger import QueryTimeoutError

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def ledger_errors() -> Iterator[None]:
    """Refuse the request where the ledger does not answer it.

    Raises:
        ApiError: 503.
    """
    try:
        yield
    except QueryTimeoutError as error:
        raise unavailable(str(error)) from error
    except LedgerUnavailableError as error:
        logger.warning("a request is not answered: %s", error)
        raise unavailable("the ledger is away: try again later; the observer's log says why") from error

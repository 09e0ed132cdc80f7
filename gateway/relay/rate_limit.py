"""Requests a token may make in a window. Counted in this process; several relays share a limit only over Redis."""

import time
from typing import NamedTuple

import limits
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter


class RateLimitExceeded(NamedTuple):
    """A request over the limit."""

    limit: int
    reset_s: int
    """Seconds until the window ends, at least 1."""


class RateLimits:
    """Fixed windows, one for each token."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def take(self, rate: limits.RateLimitItem, workspace_id: str, token_id: str) -> RateLimitExceeded | None:
        """Count a request; None if it is within the limit."""
        if self._limiter.hit(rate, workspace_id, token_id):
            return None
        stats = self._limiter.get_window_stats(rate, workspace_id, token_id)
        return RateLimitExceeded(rate.amount, max(int(stats.reset_time - time.time()) + 1, 1))

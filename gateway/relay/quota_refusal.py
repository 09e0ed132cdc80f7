"""What a client is told whose call the plan does not allow. Pure."""

from datetime import UTC, datetime
from typing import Any, Final

from gateway.calls import ErrorType
from gateway.relay.quota import FRESH_NS, QuotaExceeded

TOO_MANY: Final = 429
"""The error's code: the HTTP status, as of every refusal of the gateway's own."""


def reason(denied: QuotaExceeded) -> str:
    """Why, and what to do; for a person, or a model that tells one."""
    plan, calls = denied.limit
    if denied.used is None:
        return (
            f"what this workspace has used of its plan {plan!r} ({calls:,} calls a month) is not known now, and "
            "calls are refused until it is (usage.fail: closed): try again in a few seconds; if it stays so, the "
            "gateway's operator finds the reason in the observer's log"
        )
    return (
        f"the plan {plan!r} allows {calls:,} calls a month, and they are used up: calls are served again from "
        f"{_utc(denied.month.end_ns)} on, or as soon as the gateway's operator gives the workspace a larger plan"
    )


def refusal_data(denied: QuotaExceeded) -> dict[str, Any]:
    """The same for programs: the error's `data`."""
    return {
        "error_type": ErrorType.QUOTA_EXCEEDED.value,
        "plan": denied.limit.plan,
        "limit": denied.limit.calls,
        "used": denied.used,
        "period": denied.month.label,
        "period_end": _utc(denied.month.end_ns),
    }


def retry_after_s(denied: QuotaExceeded, now_ns: int) -> int:
    """The value of `Retry-After`: until the month ends, or, while nothing is known, until it may be."""
    wait_ns = FRESH_NS if denied.used is None else denied.month.end_ns - now_ns
    return max(-(-wait_ns // 10**9), 1)


def _utc(ns: int) -> str:
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

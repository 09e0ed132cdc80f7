"""Records and batches for tests."""

import itertools
from collections.abc import Sequence
from typing import Any

from gateway.calls import ToolCall
from gateway.journal import Batch, Entry

_ids = itertools.count()


def call(**fields: Any) -> ToolCall:
    """A successful call; every field may be given."""
    number = next(_ids)
    defaults: dict[str, Any] = {
        "call_id": f"call-{number:06d}",
        "timestamp_ns": 1_795_000_000_000_000_000 + number,
        "workspace_id": "engineering",
        "token_id": "alice",
        "server_slug": "github",
        "tool_name": "create_issue",
        "trace_id": f"{number:032x}",
        "span_id": f"{number:016x}",
        "upstream_span_id": f"{number + 1:016x}",
        "status": "success",
        "duration_ms": 10.0,
        "total_ms": 11.0,
    }
    return ToolCall(**{**defaults, **fields})


def batch(
    calls: Sequence[ToolCall], *, writer: str = "w1", start: int = 0, others: dict[str, int] | None = None, lag: int = 0
) -> Batch:
    """The batch of a writer whose every line is 10 bytes long, read from `start` on."""
    entries = [Entry(event, writer, start + 10 * (i + 1)) for i, event in enumerate(calls)]
    return Batch(entries, {writer: start + 10 * len(calls), **(others or {})}, 0, lag)

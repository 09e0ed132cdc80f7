"""Events and journals for tests."""

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.calls import CallStart, Heartbeat, ToolCall, ended
from gateway.journal import Writer
from gateway.journal.segments import list_segments


def start(call_id: str) -> CallStart:
    """The start of a call."""
    return CallStart(
        call_id=call_id,
        timestamp_ns=1_795_000_000_000_000_000,
        workspace_id="engineering",
        token_id="alice",
        server_slug="github",
        tool_name="create_issue",
        trace_id="1" * 32,
        span_id="2" * 16,
        upstream_span_id="3" * 16,
    )


def end(call_id: str) -> ToolCall:
    """The record of the same call."""
    return ended(start(call_id), "success", duration_ms=10.0, total_ms=11.0)


def beat(number: int = 1) -> Heartbeat:
    """A heartbeat; its pid tells it from others."""
    return Heartbeat(timestamp_ns=1, replica="r", pid=number)


def folder_of(writer: Writer, root: Path) -> Path:
    return root / writer.writer_id


def written(folder: Path) -> list[list[dict[str, Any]]]:
    """What stands in each segment of a writer's folder."""
    return [[json.loads(line) for line in segment.path.read_bytes().splitlines()] for segment in list_segments(folder)]


def ids(lines: list[dict[str, Any]]) -> list[str]:
    """`start a`, `end a`, `heartbeat 7` for each line."""
    return [f"{line['event']} {line.get('call_id', line.get('pid'))}" for line in lines]


def kill(writer: Writer) -> None:
    """What the kernel does when a process dies: its descriptors are closed, and with them its lock is gone."""
    for descriptor in (*writer._unsynced, writer._descriptor, writer._lock):
        os.close(descriptor)
    writer._unsynced.clear()
    writer._descriptor = -1


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A disk that takes no byte beyond `size` of any file; a write over it is cut, the next one refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def no_new_files() -> Iterator[None]:
    """A process that may open no file more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(taken[0])

"""Calls that end otherwise than with an answer, as each signal tells of them: a client of each era, every cause."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mcp.shared.exceptions import MCPError

from tests.observer.otlp_collector import Collector, collecting
from tests.system.clients import Counts, Mode, Outcome, client
from tests.system.gateway_process import SCRIPTED, Gateway, eventually, running, upstreams
from tests.system.signal_counts import LiveStream, from_api, from_metrics, live_stream


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


PATIENCE_S = 1.0
TIMEOUT_S = 2.0


class Ended(NamedTuple):
    """How a call ends: its server and tool, what its client does, and what is to be recorded."""

    server: str
    tool: str
    error_type: str | None
    at_least_ms: float
    patience_s: float | None = None
    kill: bool = False


ENDED = (
    Ended("modern", "count", None, 30),
    Ended("legacy", "count", None, 30),
    Ended("modern", "hang", "cancelled", PATIENCE_S * 1000 * 0.9, patience_s=PATIENCE_S),
    Ended("legacy", "hang", "cancelled", PATIENCE_S * 1000 * 0.9, patience_s=PATIENCE_S),
    Ended("brief", "hang", "upstream_timeout", TIMEOUT_S * 1000 * 0.99),
    Ended("misbehaving", "cut", "upstream_protocol_error", 0),
    Ended("mortal", "hang", "upstream_unreachable", 0, kill=True),
)


class Mortal:
    """A scripted server that can be killed."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, SCRIPTED, "modern", "--port=0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@contextlib.asynccontextmanager
async def workspace(folder: Path, collector: Collector, mortal: Mortal) -> AsyncIterator[tuple[Gateway, LiveStream]]:
    with upstreams("modern", "legacy", "misbehaving") as urls:
        servers: dict[str, dict[str, Any]] = {kind: {"url": url} for kind, url in urls.items()}
        servers |= {"brief": {"url": urls["modern"], "timeout": TIMEOUT_S}, "mortal": {"url": mortal.url}}
        settings = {"otlp": {"endpoint": collector.url}}
        with running(folder, servers, {"alice": {}}, settings=settings) as gateway:
            async with live_stream(gateway) as stream:
                yield gateway, stream


async def make(gateway: Gateway, mode: Mode, ended: Ended, mortal: Mortal) -> list[float]:
    """Make the call, end it as planned; the steps of progress that came."""
    steps: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001 - a callback
        steps.append(progress)

    async with client(gateway, "alice", mode) as connected:
        await connected.list_tools()
        killing = asyncio.get_running_loop().call_later(PATIENCE_S, mortal.kill) if ended.kill else None
        calling = connected.call_tool(
            f"{ended.server}__{ended.tool}", {}, read_timeout_seconds=ended.patience_s, progress_callback=note
        )
        if ended.error_type is None:
            assert not (await calling).is_error
        else:
            with pytest.raises(MCPError):
                await calling
        assert killing is None or mortal.process.returncode is not None
    return steps


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_however_a_call_ends_every_signal_says_so(mode: Mode, tmp_path: Path, collector: Collector) -> None:
    mortal = Mortal()
    try:
        async with workspace(tmp_path, collector, mortal) as (gateway, stream):
            for ended in ENDED:
                steps = await make(gateway, mode, ended, mortal)
                assert len(steps) == (5 if ended.tool == "count" else 0)
            expected = Counts(
                Outcome("alice", e.server, e.tool, "error" if e.error_type else "success", e.error_type) for e in ENDED
            )
            await asyncio.to_thread(eventually, lambda: from_api(gateway) == expected)
            await asyncio.to_thread(eventually, lambda: from_metrics(gateway) == expected)
            await asyncio.to_thread(eventually, lambda: len(collector.logged()) == len(ENDED))
            rows = gateway.ask("/analytics/calls", limit="100")["calls"]
            calls = [gateway.ask(f"/analytics/calls/{row['call_id']}") for row in rows]
            assert stream.counts == expected
    finally:
        mortal.kill()

    assert sorted(collector.logged()) == sorted(call["call_id"] for call in calls)
    durations = {attributes["mcp.call.id"]: attributes for attributes in server_spans(collector)}
    for call in calls:
        [ended] = [e for e in ENDED if (e.server, e.tool) == (call["server_slug"], call["tool_name"])]
        assert ended.at_least_ms <= call["duration_ms"] <= call["total_ms"] < ended.at_least_ms + 30_000
        phases = sum(phase["duration_ms"] for phase in call["phases"])
        assert phases == pytest.approx(call["total_ms"], abs=0.01)
        span = durations[call["call_id"]]
        assert span.get("error.type") == ended.error_type
        assert span["duration_ms"] == pytest.approx(call["total_ms"], abs=0.01)


def server_spans(collector: Collector) -> list[dict[str, Any]]:
    """The SERVER spans' text attributes, and how long they took."""
    spans = [
        span
        for request in collector.traces
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
        if any(attribute.key == "mcp.call.id" for attribute in span.attributes)
    ]
    return [
        {attribute.key: attribute.value.string_value for attribute in span.attributes}
        | {"duration_ms": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6}
        for span in spans
        if span.kind == span.SPAN_KIND_SERVER
    ]

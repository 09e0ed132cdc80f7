"""Records, a clock and a reader of expositions for the tests of the metrics."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from prometheus_client.registry import Collector

from gateway.calls import Event, Heartbeat, Operation, Phases, ToolCall, UpstreamState
from gateway.config import Config, Metrics
from gateway.journal import Batch, Reader, Writer
from gateway.journal.reader import Entry
from gateway.observer.metrics import MetricsSink

NOW = 1_795_000_000.0
BEGIN = 1_700_000_000_000_000_000
AT_ONCE = Metrics(birth_interval=0)
PHASES = Phases(authenticate=0.5, route=0.25, acquire=0.1, send=0.1, wait=29.0, receive=0.8, respond=0.25)

Labels = dict[str, str]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now

    @property
    def ns(self) -> int:
        return int(self.now * 1e9)


def call(number: int = 0, **changes: Any) -> ToolCall:
    fields: dict[str, Any] = {
        "call_id": f"c{number}",
        "timestamp_ns": int(NOW * 1e9),
        "workspace_id": "engineering",
        "token_id": "alice",
        "server_slug": "github",
        "tool_name": "create_issue",
        "trace_id": f"{number + 1:032x}",
        "span_id": f"{2 * number + 1:016x}",
        "upstream_span_id": f"{2 * number + 2:016x}",
        "status": "success",
        "duration_ms": 30.0,
        "total_ms": 31.0,
        "phases": PHASES,
        **changes,
    }
    return ToolCall(**fields)


def traced_call(number: int = 1, **changes: Any) -> ToolCall:
    """A call with the ids of the W3C's example, without phases."""
    ids = {
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "00f067aa0ba902b7",
        "upstream_span_id": "b7ad6b7169203331",
    }
    times = {"timestamp_ns": BEGIN, "duration_ms": 33.5, "total_ms": 34.2, "phases": Phases()}
    return call(number, **{**ids, **times, **changes})


def operation(**changes: Any) -> Operation:
    fields: dict[str, Any] = {
        "side": "server",
        "method": "tools/list",
        "timestamp_ns": int(NOW * 1e9),
        "duration_ms": 15.0,
        "workspace_id": "engineering",
        **changes,
    }
    return Operation(**fields)


def beat(clock: Clock, *, pid: int = 1, upstream: dict[str, Any] | None = None, **changes: Any) -> Heartbeat:
    fields: dict[str, Any] = {"timestamp_ns": clock.ns, "replica": "here", "pid": pid, **changes}
    if upstream is not None:
        fields["upstreams"] = [UpstreamState(**{"workspace_id": "engineering", "server_slug": "github", **upstream})]
    return Heartbeat(**fields)


def batch(*events: Event, start: int = 0, lag_bytes: int = 0) -> Batch:
    """A batch of one writer, whose events take 100 bytes each from `start` on."""
    entries = [Entry(event, "w", start + 100 * (i + 1)) for i, event in enumerate(events)]
    return Batch(entries, {"w": start + 100 * len(events)}, 0, lag_bytes)


def read_all(sink: MetricsSink, reader: Reader, max_bytes: int = 2**20) -> None:
    """SinkWorker the journal into the sink from where the sink says that it is, until there is no more."""
    positions = dict(sink.committed)
    while True:
        found = reader.read(positions, max_bytes)
        sink.process(found)
        positions = found.positions
        if found.lag_bytes == 0:
            return


def write_all(writer: Writer, calls: Iterable[ToolCall]) -> None:
    for one in calls:
        writer.append(one)


def samples(collector: Collector) -> Samples:
    """Everything that the sink, or another collector, exposes."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def sample_key(name: str, /, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def named(collector: Collector, name: str) -> list[tuple[Labels, float]]:
    """The labels and the value of each sample of one name."""
    return [(dict(labels), value) for (sample, labels), value in samples(collector).items() if sample == name]


def value(collector: Collector, name: str, /, **labels: str) -> float | None:
    """The one sample with these labels among its own; None if there is none."""
    found = [number for own, number in named(collector, name) if labels.items() <= own.items()]
    assert len(found) <= 1, f"{name} {labels} is {len(found)} samples"
    return found[0] if found else None


def configuration(**token: str) -> Config:
    alice = {"id": "alice", "name": "Alice Cursor", "sha256": "0" * 64, **token}
    return Config.model_validate(
        {
            "workspaces": {
                "engineering": {"name": "Engineering", "plan": "pro", "tokens": [alice]},
                "lab": {"plan": "enterprise"},
            }
        }
    )


def sink_at(path: Path, clock: Clock, settings: Metrics = AT_ONCE, **changes: Any) -> MetricsSink:
    return MetricsSink(path / "metrics.state", settings, clock=clock, **changes)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what a thread or another process does: it sets no event."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.005)

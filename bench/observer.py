"""How fast the observer takes in what the relay wrote: metrics and ledger together, one process on one core."""

import os
import tempfile
import time
from pathlib import Path

from rich.console import Console

from bench.processes import MEASURED
from gateway.calls import CallStart, ErrorType, Heartbeat, Operation, Phases, ToolCall, ended
from gateway.config import Metrics
from gateway.journal import Reader, Writer
from gateway.ledger import LedgerSink, open_ledger
from gateway.observer.metrics import MetricsSink
from gateway.observer.sinks import SinkWorker

PHASES = Phases(authenticate=0.03, route=0.02, acquire=0.01, send=0.05, wait=12.5, receive=0.1, respond=0.04)
SERVERS, TOOLS, TOKENS = 4, 10, 10


def write(journal: Path, calls: int) -> None:
    """A journal as one relay writes it: `calls` calls by 10 tokens to 40 tools, one in twenty failing."""
    writer = Writer(journal, "relay-0")
    for number in range(calls):
        write_call(writer, number)
    writer.close()


def write_call(writer: Writer, number: int, *, workspace_id: str = "bench") -> None:
    """Its two lines."""
    start = CallStart(
        call_id=f"01a208e5-8028-7787-b3b3-{number:012x}",
        timestamp_ns=time.time_ns(),
        workspace_id=workspace_id,
        token_id=f"token-{number % TOKENS}",
        server_slug=f"server-{number % SERVERS}",
        tool_name=f"tool-{number // SERVERS % TOOLS}",
        trace_id=f"{number + 1:032x}",
        span_id=f"{number + 1:016x}",
        upstream_span_id=f"{number + 2:016x}",
        request_bytes=260,
        upstream_address="127.0.0.1:9000",
        protocol_version="2026-07-28",
        client_name="claude",
        client_version="1.2.3",
        jsonrpc_id=str(number),
        replica="bench",
    )
    writer.append(start)
    writer.append(_end(start, failed=number % 20 == 0))


def _end(start: CallStart, *, failed: bool) -> ToolCall:
    if not failed:
        return ended(start, "success", duration_ms=12.66, total_ms=12.75, response_bytes=300, phases=PHASES)
    return ended(
        start,
        "error",
        duration_ms=12.66,
        total_ms=12.75,
        error_type=ErrorType.TOOL_ERROR,
        error_message="no such issue",
        upstream_response='{"content":[{"type":"text","text":"no such issue"}],"isError":true}',
        phases=PHASES,
    )


def run(console: Console, *, calls: int, ledger_url: str | None = None) -> None:
    """SinkWorker everything through both sinks at once, as the observer does, and say how long a call took."""
    os.sched_setaffinity(0, {MEASURED})
    with tempfile.TemporaryDirectory(prefix="callscope-bench-") as name:
        folder = Path(name)
        write(folder / "journal", calls)
        ledger = open_ledger(ledger_url, folder)
        metrics = MetricsSink(folder / "metrics.state", Metrics())
        workers = [
            SinkWorker(
                LedgerSink(ledger, journal_id=name), Reader(folder / "journal", ToolCall), interval=0.5, max_bytes=2**22
            ),
            SinkWorker(
                metrics, Reader(folder / "journal", ToolCall, Operation, Heartbeat), interval=0.1, max_bytes=2**18
            ),
        ]
        began, cpu = time.perf_counter(), time.process_time()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.stop(drain_seconds=600)
        elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
        ledger.close()
        kind = "DuckDB" if ledger_url is None else "PostgreSQL"
        console.print(
            f"observer, one core: {calls:,} calls into metrics and ledger ({kind}) in {elapsed:.1f} s: "
            f"{calls / elapsed:,.0f} calls/s, {cpu / calls * 1e6:.0f} µs of CPU a call"
        )

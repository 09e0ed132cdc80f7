"""How long each answer of the analytics API takes with millions of calls in the ledger, also while more come in.

What answers is `callscope serve` over HTTP, with both cores. Each round asks every question once.
"""

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import jwt
import yaml
from rich.console import Console
from rich.table import Table

from bench import processes
from bench.ledger_rows import DAY_NS, SERVERS, Shape, fill_duckdb, fill_postgresql, tokens
from gateway.analytics.views import encode_cursor
from gateway.ledger.queries import PagePosition

SECRET: Final = "bench-bench-bench-bench-bench-bench"
WORKSPACE: Final = "bench-0"
PERIOD_DAYS: Final = 30
SCRAPE_S: Final = 2.0
_LAG: Final = re.compile(r'^mcp_gateway_sink_lag_seconds\{[^}]*sink="ledger"[^}]*\} (\S+)$', re.MULTILINE)


class Times(NamedTuple):
    """A question's milliseconds in each round, and the observer's CPU in all of them."""

    taken: list[float]
    cpu_ms: list[float]


class Question(NamedTuple):
    """What is asked; the path stands under `/analytics`."""

    name: str
    path: str
    parameters: dict[str, str]


class Service:
    """The running service, and how it is asked."""

    def __init__(self, port: int, pid: int) -> None:
        bearer = jwt.encode({"workspaces": ["*"], "exp": time.time() + 86_400}, SECRET, "HS256")
        self.pid = pid
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {bearer}"}, timeout=60
        )

    def ask(self, question: Question) -> tuple[float, Any]:
        """Milliseconds until the whole answer was there, and the answer."""
        began = time.perf_counter()
        response = self._client.get(
            f"/api/community/mcp/workspaces/{WORKSPACE}/analytics{question.path}", params=question.parameters
        )
        elapsed = (time.perf_counter() - began) * 1e3
        response.raise_for_status()
        return elapsed, response.json()

    def lag_s(self) -> float:
        """How long ago the ledger had everything that was in the journal."""
        found = _LAG.search(self._client.get("/metrics").text)
        return float(found[1]) if found else float("nan")

    def peak_mb(self) -> int:
        """The most memory that the observer has had."""
        [line] = [row for row in Path(f"/proc/{self.pid}/status").read_text().splitlines() if row.startswith("VmHWM")]
        return int(line.split()[1]) // 1024


@contextlib.contextmanager
def serving(folder: Path, shape: Shape, ledger_url: str | None) -> Iterator[Service]:
    """`callscope serve`, bound to no core."""
    relay, observer = processes.free_port(), processes.free_port()
    workspace = {
        "plan": "enterprise",
        "servers": {f"server-{number}": {"url": "http://127.0.0.1:9/mcp"} for number in range(SERVERS)},
        "tokens": [{"id": token, "name": token, "sha256": os.urandom(32).hex()} for token in tokens()],
    }
    settings: dict[str, Any] = {
        "listen": f"127.0.0.1:{relay}",
        "observer": {"listen": f"127.0.0.1:{observer}"},
        "data_dir": str(folder),
        "api": {"jwt": {"secret": SECRET}},
        "workspaces": {
            name: workspace if name == WORKSPACE else {"plan": "enterprise"} for name in shape.workspace_ids
        },
    }
    config = folder / "callscope.yaml"
    config.write_text(yaml.safe_dump(settings if ledger_url is None else {**settings, "ledger": ledger_url}))
    with processes.running("-m", "gateway", "serve", f"--config={config}", port=observer, core=None):
        pid_file = folder / "run" / "observer.pid"
        processes.until(pid_file.exists)
        yield Service(observer, int(pid_file.read_text()))


@contextlib.contextmanager
def traffic(journal: Path, per_second: int, lags: list[float], service: Service) -> Iterator[None]:
    """Calls are written into the journal as a relay does, and the ledger's lag is noted, until the end of the block."""
    stopping = threading.Event()
    command = [sys.executable, "-m", "bench.traffic", str(journal), str(per_second), WORKSPACE]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE)

    def watch() -> None:
        while not stopping.wait(SCRAPE_S):
            lags.append(service.lag_s())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        stopping.set()
        watching.join()
        writer.communicate()


def questions(service: Service) -> list[Question]:
    """One for each path, of 30 days, and the usual filters."""
    span = {"period": f"{PERIOD_DAYS}d"}
    to_ns = time.time_ns()
    from_ns, middle_ns = to_ns - PERIOD_DAYS * DAY_NS, to_ns - PERIOD_DAYS // 2 * DAY_NS
    deep = encode_cursor(from_ns, to_ns, PagePosition(middle_ns, ""))
    _, page = service.ask(Question("", "/calls", {"cursor": deep}))
    every = "token,server,tool,status,error_type"
    return [
        Question("all views", "", span),
        Question("all views, this month", "", {"period": "month", "tz": "Asia/Kolkata"}),
        Question("overview", "/overview", span),
        Question("overview of one tool", "/overview", {**span, "tool": "tool_03"}),
        Question("tools", "/tools", span),
        Question("tools of one token", "/tools", {**span, "token": "token-02"}),
        Question("members", "/members", span),
        Question("servers", "/servers", span),
        Question("usage", "/usage", {}),
        Question("groups by all five", "/groups", {**span, "by": every}),
        Question("groups by server", "/groups", {**span, "by": "server"}),
        Question("timeline by token, 1h", "/timeline", {**span, "by": "token", "step": "1h"}),
        Question("calls, first page", "/calls", span),
        Question("calls, page in the middle", "/calls", {"cursor": deep}),
        Question("calls, failed ones", "/calls", {**span, "status": "error"}),
        Question("one call", f"/calls/{page['calls'][0]['call_id']}", {}),
    ]


def run(console: Console, *, shape: Shape, ledger_url: str | None, folder: Path | None, rounds: int, rate: int) -> None:
    """Make a ledger, or take the one that is in `folder`, and print a table."""
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="callscope-bench-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        filled = folder / "filled"
        if not filled.exists():
            began = time.perf_counter()
            if ledger_url is None:
                fill_duckdb(folder / "ledger.duckdb", shape)
            else:
                fill_postgresql(ledger_url, shape)
            filled.touch()
            console.print(f"{shape.rows:,} calls made in {time.perf_counter() - began:.0f} s")
        service = stack.enter_context(serving(folder, shape, ledger_url))
        asked = questions(service)
        quiet = _measure(service, asked, rounds)
        lags: list[float] = []
        with traffic(folder / "journal", rate, lags, service):
            busy = _measure(service, asked, rounds)
        console.print(_table(shape, asked, quiet, busy, rate))
        console.print(
            f"the ledger's lag meanwhile, in seconds: median {statistics.median(lags):.1f}, most {max(lags):.1f}; "
            f"the observer's memory: {service.peak_mb()} MB at most; load average {os.getloadavg()[0]:.1f}"
        )


def _measure(service: Service, asked: list[Question], rounds: int) -> list[Times]:
    """What each question takes in each round, after one that nobody counts."""
    for question in asked:
        service.ask(question)
    measured = [Times([], []) for _ in asked]
    for _ in range(rounds):
        for times, question in zip(measured, asked, strict=True):
            before = processes.cpu_seconds(service.pid)
            times.taken.append(service.ask(question)[0])
            times.cpu_ms.append((processes.cpu_seconds(service.pid) - before) * 1e3)
    return measured


def _table(shape: Shape, asked: list[Question], quiet: list[Times], busy: list[Times], rate: int) -> Table:
    table = Table(
        title=f"{shape.rows:,} calls of {shape.days} days in {shape.workspaces} workspaces; {PERIOD_DAYS} days of the "
        f"largest one, in ms; right: while {rate:,} calls a second come in"
    )
    for column in ("", "p50", "p95", "CPU", "p50", "p95"):
        table.add_column(column, justify="right" if column else "left")
    for question, alone, meanwhile in zip(asked, quiet, busy, strict=True):
        table.add_row(
            question.name,
            f"{statistics.median(alone.taken):.0f}",
            f"{_p95(alone.taken):.0f}",
            f"{statistics.mean(alone.cpu_ms):.0f}",
            f"{statistics.median(meanwhile.taken):.0f}",
            f"{_p95(meanwhile.taken):.0f}",
        )
    return table


def _p95(times: list[float]) -> float:
    return sorted(times)[min(len(times) - 1, round(len(times) * 0.95))]

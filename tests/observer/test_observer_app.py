"""The whole telemetry plane: in this process by ASGI, and as the process that the supervisor starts."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.analytics.bearer import issue
from gateway.calls import ErrorType, ToolCall
from gateway.config import Jwt, load
from gateway.journal import Reader, Writer
from gateway.observer.exposition import exposition
from gateway.observer.observer_app import TelemetryPlane, build
from gateway.process import Launch
from tests.observer import events

SECRET = "a secret of the tests that is long enough"
API = "/api/community/mcp/workspaces/engineering/analytics"
TOOL_CALLS = "mcp_gateway_tool_calls_total"
DROPPED = "mcp_gateway_records_dropped_total"
RELOADS = "mcp_gateway_config_reloads_total"
LIVE = "/api/community/mcp/workspaces/engineering/logs/stream"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
AUTHORIZATION = {"authorization": f"Bearer {issue(Jwt(secret=SECRET), ['engineering'], 3600, time.time())}"}


def call(number: int, **changes: Any) -> ToolCall:
    return events.call(number, timestamp_ns=time.time_ns(), **changes)


def write_config(path: Path, **changes: Any) -> Path:
    tree = {
        "api": {"jwt": {"secret": SECRET}},
        "metrics": {"birth_interval": 0},
        "workspaces": {
            "engineering": {
                "plan": "pro",
                "servers": {"github": {"url": "http://127.0.0.1:1/mcp"}},
                "tokens": [{"id": "alice", "name": "Alice Cursor", "sha256": "0" * 64}],
            }
        },
        **changes,
    }
    draft = path.with_suffix(".draft")
    draft.write_text(yaml.safe_dump(tree))
    return draft.replace(path)


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir()
    return write_config(folder / "callscope.yaml")


@asynccontextmanager
async def plane(config_path: Path, stop: asyncio.Event | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """The plane in this process, and a client of it."""
    async with build(load(config_path), stop=stop or asyncio.Event(), config_path=config_path) as app:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://observer") as http:
            yield http


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - the condition is a thread's work
            await asyncio.sleep(0.02)


def sample(page: str, name: str, **labels: str) -> float:
    """The value of the samples of that name that have these labels; 0 if there are none."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)  # type: ignore[no-untyped-call]  # it has no types
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def scrape(http: httpx.AsyncClient) -> str:
    answer = await http.get("/metrics", headers={"accept": OPENMETRICS})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    return answer.text


async def ledger_calls(http: httpx.AsyncClient) -> int:
    answer = await http.get(f"{API}/overview", headers=AUTHORIZATION)
    return int(answer.json()["calls"]["range"])


@pytest.fixture
def writer(config_path: Path) -> Iterator[Writer]:
    writer = Writer(load(config_path).data_dir / "journal", "relay-0")
    yield writer
    writer.close()


async def test_a_call_is_in_the_ledger_and_in_the_live_stream(config_path: Path, writer: Writer) -> None:
    writer.append(call(0))
    async with plane(config_path) as http:
        await until(lambda: ledger_calls(http))
        stream = await http.head(LIVE, headers=AUTHORIZATION)

        assert await ledger_calls(http) == 1
        assert stream.headers["content-type"].startswith("text/event-stream")


async def test_a_call_is_in_the_metrics_and_in_the_usage_gauge(config_path: Path, writer: Writer) -> None:
    writer.append(call(0))
    writer.append(call(1, status="error", error_type=ErrorType.TOOL_ERROR))
    async with plane(config_path) as http:

        async def is_counted() -> bool:
            page = await scrape(http)
            return sample(page, TOOL_CALLS, workspace="engineering", tool="create_issue") == 2

        await until(is_counted)
        await until(lambda: ledger_calls(http))
        page = await scrape(http)

    assert sample(page, TOOL_CALLS, status="error", error_type="tool_error") == 1
    assert sample(page, "mcp_gateway_usage_calls", workspace="engineering") == 2
    assert sample(page, "mcp_gateway_plan_limit_calls", plan="pro") == 500_000
    assert sample(page, "mcp_gateway_build_info") == 1
    assert sample(page, "mcp_gateway_sink_lag_bytes", sink="ledger") == 0
    assert 'mcp_gateway_event_loop_lag_seconds{process="observer"} ' in page
    assert sample(page, "process_resident_memory_bytes") > 0


async def test_what_sinks_have_lost_is_in_the_metrics(config_path: Path) -> None:
    write_config(config_path, otlp={"endpoint": "http://127.0.0.1:1"})
    plane = TelemetryPlane(load(config_path), replica="here")
    assert plane.otlp is not None
    page, _ = exposition(plane.registry(), OPENMETRICS)
    before = sample(page.decode(), DROPPED)

    plane.maintenance.dropped["ledger"] += 7
    plane.workers[1].corrupt_lines += 3
    plane.otlp.dropped["rejected"] += 5
    plane.metrics.save()
    page, _ = exposition(plane.registry(), OPENMETRICS)
    plane.otlp.close()
    plane.ledger.close()

    assert before == 0
    assert f'{DROPPED}{{reason="corrupt",sink="ledger"}} 0' in page.decode(), "it is there before there is any"
    assert sample(page.decode(), DROPPED, sink="metrics", reason="corrupt") == 3
    assert sample(page.decode(), DROPPED, sink="ledger", reason="max_bytes") == 7
    assert sample(page.decode(), DROPPED, sink="otlp", reason="rejected") == 5


async def test_a_call_that_a_dead_relay_left_open_is_closed_before_the_sinks_start(config_path: Path) -> None:
    journal = load(config_path).data_dir / "journal"
    script = f"""
import os, time
from pathlib import Path
from gateway.calls import CallStart
from gateway.journal import Reader, Writer
writer = Writer(Path({str(journal)!r}), "relay-0")
writer.append(CallStart(call_id="left", timestamp_ns=time.time_ns(), workspace_id="engineering", token_id="alice",
    server_slug="github", tool_name="create_issue", trace_id="1" * 32, span_id="2" * 16, upstream_span_id="3" * 16))
os._exit(9)
"""
    subprocess.run([sys.executable, "-c", script], check=False)  # noqa: ASYNC221 - our own program, and short

    async with plane(config_path) as http:
        await until(lambda: ledger_calls(http))
        answer = await http.get(f"{API}/calls/left", headers=AUTHORIZATION)

    assert answer.json()["error_type"] == "gateway_error"


async def test_the_plane_is_ready_while_it_runs_and_says_what_is_missing_after(config_path: Path) -> None:
    async with plane(config_path) as http:
        live, ready = await http.get("/healthz"), await http.get("/readyz")
        client = http._transport
        assert (live.status_code, ready.status_code) == (200, 200)
        assert ready.json() == {"ready": True, "problems": []}

    async with httpx.AsyncClient(transport=client, base_url="http://observer") as http:
        ready = await http.get("/readyz")
    assert ready.status_code == 503
    assert ready.json() == {
        "ready": False,
        "problems": ["the ledger sink does not run", "the metrics sink does not run", "the ledger is away"],
    }


async def test_what_is_not_there_is_json_too(config_path: Path) -> None:
    async with plane(config_path) as http:
        missing, wrong = await http.get("/nothing"), await http.post("/healthz")

    assert (missing.status_code, missing.json()) == (404, {"error": "Not Found"})
    assert (wrong.status_code, wrong.json()) == (405, {"error": "Method Not Allowed"})
    assert wrong.headers["allow"]


async def test_a_valid_change_of_the_configuration_holds_at_once(config_path: Path) -> None:
    async with plane(config_path) as http:
        usage = (await http.get(f"{API}/usage", headers=AUTHORIZATION)).json()
        assert usage["tier"] == "pro"

        write_config(config_path, workspaces={"engineering": {"plan": "business"}})

        async def is_business() -> bool:
            answer = await http.get(f"{API}/usage", headers=AUTHORIZATION)
            return bool(answer.json()["tier"] == "business")

        await until(is_business)
        page = await scrape(http)

    assert (sample(page, RELOADS, status="success"), sample(page, RELOADS, status="error")) == (1, 0)
    assert sample(page, "mcp_gateway_workspace_info", plan="business") == 1


async def test_an_invalid_change_is_logged_with_every_mistake_and_changes_nothing(
    config_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with plane(config_path) as http:
        write_config(config_path, nonsense=1, data_dir=[])

        async def is_logged() -> bool:
            return "nonsense" in caplog.text and "data_dir" in caplog.text

        await until(is_logged)
        usage = (await http.get(f"{API}/usage", headers=AUTHORIZATION)).json()
        page = await scrape(http)

    assert (sample(page, RELOADS, status="success"), sample(page, RELOADS, status="error")) == (0, 1)
    assert usage["tier"] == "pro"
    assert caplog.text.count("the changed configuration is refused") == 2


async def test_a_change_that_cannot_hold_at_once_is_logged(config_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with plane(config_path):
        write_config(config_path, listen="127.0.0.1:9999")

        async def is_logged() -> bool:
            return "the change of 'listen' needs a restart" in caplog.text

        await until(is_logged)


async def test_the_end_waits_for_the_sinks_to_take_what_is_in_the_journal(config_path: Path, writer: Writer) -> None:
    async with plane(config_path):
        for number in range(500):
            writer.append(call(number))

    async with plane(config_path) as http:
        assert await ledger_calls(http) == 500


async def test_a_sink_that_dies_stops_the_observer(config_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = asyncio.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def broken(*_: object) -> None:
        raise SystemExit  # ends the thread, and nothing else

    monkeypatch.setattr(Reader, "read", broken)
    async with plane(config_path, stop) as http, asyncio.timeout(60):
        await stop.wait()
        assert (await http.get("/readyz")).status_code == 503


async def test_nobody_is_sent_to_an_address_of_the_requests_own_making(config_path: Path) -> None:
    headers = {**AUTHORIZATION, "host": "evil.example"}
    async with plane(config_path) as http:
        for path in ("/metrics", "/healthz", "/nothing", f"{API}/nothing"):
            answer = await http.get(f"{path}/", headers=headers)
            assert (answer.status_code, "location" in answer.headers) == (404, False), path
        for path in (API, f"{API}/usage", "/api/openapi.json"):
            assert (await http.get(f"{path}/", headers=headers)).status_code == 200, path
        for path in (LIVE, f"{API}/export"):
            answer = await http.head(f"{path}/", headers=headers, params={} if path == LIVE else {"format": "csv"})
            assert answer.status_code == 200, path


async def test_a_name_that_never_was_is_refused_by_the_live_stream_as_by_every_other_path(config_path: Path) -> None:
    async with plane(config_path) as http, asyncio.timeout(60):
        live = await http.get(LIVE, params={"server": "nope"}, headers=AUTHORIZATION)
        overview = await http.get(f"{API}/overview", params={"server": "nope"}, headers=AUTHORIZATION)

    assert (live.status_code, live.json()) == (400, overview.json())
    assert live.json()["allowed"] == ["github"]


class Process:
    """The observer as the supervisor starts it: the same socket for each life."""

    def __init__(self, config_path: Path) -> None:
        self._config = config_path
        self._run_file = load(config_path).data_dir / "run" / "observer.pid"
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._read_end, self._write_end = os.pipe()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self._socket.getsockname()[1]}", timeout=60)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        launch = Launch(
            config=self._config, fd=self._socket.fileno(), run_file=self._run_file, parent_pipe=self._read_end
        )
        return subprocess.Popen(
            [sys.executable, "-m", "gateway.observer", *launch.arguments()],
            pass_fds=(launch.fd, launch.parent_pipe),
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill_and_start(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.process = self._start()

    def stop(self) -> tuple[int, str]:
        """The status and the log."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=60)
        return self.process.returncode, log

    def until_ready(self) -> None:
        self.until(lambda: self._run_file.exists() and self._run_file.read_text() == f"{self.process.pid}\n")

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, "the condition did not come true"
            threading.Event().wait(0.02)

    def ledger_calls(self) -> int:
        answer = self.http.get(f"{API}/overview", headers=AUTHORIZATION)
        return int(answer.json()["calls"]["range"])

    def metric(self, name: str) -> float:
        return sample(self.http.get("/metrics", headers={"accept": OPENMETRICS}).text, name)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.http.close()
        self._socket.close()
        os.close(self._read_end)
        os.close(self._write_end)


@pytest.fixture
def process(config_path: Path) -> Iterator[Process]:
    process = Process(config_path)
    yield process
    process.close()


def test_a_killed_observer_counts_every_call_once_when_it_is_back(process: Process, writer: Writer) -> None:
    process.until_ready()
    written = 0
    for _ in range(3):
        for _ in range(200):
            writer.append(call(written))
            written += 1
        process.until(process.ledger_calls)
        for _ in range(200):
            writer.append(call(written))
            written += 1
        process.kill_and_start()
        process.until_ready()

    process.until(lambda: process.ledger_calls() == written)
    process.until(lambda: process.metric(TOOL_CALLS) == written)
    status, log = process.stop()

    assert status == 0, log
    assert "Traceback" not in log


def test_a_second_observer_on_the_same_data_says_why_it_cannot_start(process: Process, config_path: Path) -> None:
    process.until_ready()
    second = Process(config_path)
    _, log = second.process.communicate(timeout=60)
    second.close()

    assert second.process.returncode == 1
    assert "cannot be opened as the ledger" in log
    assert "Traceback" not in log

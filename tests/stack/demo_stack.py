"""The native stack after two minutes of the demo's traffic, and how tests query its back ends."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio.from_thread
import httpx

from gateway.demo.counts import Counts
from gateway.demo.environment import Environment, start_environment
from gateway.demo.fixtures import MEMBERS, WORKSPACES
from gateway.demo.traffic import Traffic
from stack.processes import Programs, Stack, running
from tests import backends
from tests.observer.otlp_collector import collecting

SEED: Final = 7
TRAFFIC_S: Final = 120.0
"""What a newcomer waits before looking at a dashboard."""
SETTLED_S: Final = 60.0
ALL_RECORDS: Final = '{service_name="callscope"}'

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoStack:
    """What runs after the traffic: the stack, and the demo's gateway, which has no call in flight."""

    stack: Stack
    environment: Environment
    counted: Counts
    """Calls, as the members' clients counted them."""
    began_s: float
    http: httpx.Client

    def prometheus(self, query: str) -> list[Row]:
        """The series of an instant query."""
        return self._rows(f"{self.stack.prometheus}/api/v1/query", query=query)

    def number(self, query: str) -> float:
        """The value of a query that has one series."""
        [series] = self.prometheus(query)
        return float(series["value"][1])

    def loki(self, query: str) -> list[Row]:
        """The series of an instant query, or the streams of the last hour with their lines. Skips without a Loki."""
        backends.loki()
        if query.startswith("{"):
            return self._rows(f"{self.stack.loki}/loki/api/v1/query_range", query=query, since="1h", limit=5000)
        return self._rows(f"{self.stack.loki}/loki/api/v1/query", query=query)

    def alerts(self) -> list[Row]:
        """Alertmanager's alerts."""
        return list(self.http.get(f"{self.stack.alertmanager}/api/v2/alerts").raise_for_status().json())

    def api(self, workspace: str, path: str, **parameters: str) -> Any:
        """An answer of the analytics API."""
        url = f"{self.environment.api_url(workspace)}/analytics{path}"
        bearer = {"Authorization": f"Bearer {self.environment.jwt}"}
        return self.http.get(url, params=parameters, headers=bearer).raise_for_status().json()

    def spans(self) -> list[Row]:
        """The exported spans; their attributes, and those of their resources, are plain values."""
        return [
            {**span, "attributes": _plain(span), "resource": _plain(resource["resource"])}
            for line in _lines(self.stack.traces)
            for resource in line["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]

    def log_records(self) -> list[Row]:
        """The exported log records as Loki would show them: attributes by their names in Loki, and `line`."""
        return [
            {
                **{name.replace(".", "_"): value for name, value in _plain(record).items()},
                "trace_id": record["traceId"],
                "span_id": record["spanId"],
                "time_ns": int(record["timeUnixNano"]),
                "line": record["body"]["stringValue"],
            }
            for line in _lines(self.stack.logs)
            for resource in line["resourceLogs"]
            for scope in resource["scopeLogs"]
            for record in scope["logRecords"]
        ]

    def _rows(self, url: str, **parameters: str | int) -> list[Row]:
        response = self.http.get(url, params=parameters)
        assert response.is_success, f"{parameters}: {response.text}"
        return list(response.json()["data"]["result"])


def _lines(file: Path) -> list[Row]:
    """The complete lines of a file that the Collector writes."""
    return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _plain(owner: Row) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in owner.get("attributes", ())}


@contextlib.contextmanager
def demo_stack(folder: Path, programs: Programs) -> Iterator[DemoStack]:
    """Start the stack, let the members work for two minutes, and wait until every back end has every call."""
    with (
        collecting() as instead_of_loki,
        running(folder, programs, otlp_logs=instead_of_loki.url) as stack,
        anyio.from_thread.start_blocking_portal() as portal,
        httpx.Client(timeout=30) as http,
    ):
        began_s = time.time()
        with portal.wrap_async_context_manager(_start(folder, stack)) as environment:
            counted = portal.call(_work, environment)
            found = DemoStack(stack=stack, environment=environment, counted=counted, began_s=began_s, http=http)
            _settle(found)
            yield found


@contextlib.asynccontextmanager
async def _start(folder: Path, stack: Stack) -> AsyncIterator[Environment]:
    demo, stop = folder / "demo", asyncio.Event()
    demo.mkdir()
    async with start_environment(demo, print, stop, observer=stack.observer, otlp=stack.otlp) as environment:
        yield environment


async def _work(environment: Environment) -> Counts:
    traffic, stop = Traffic(SEED), asyncio.Event()
    asyncio.get_running_loop().call_later(TRAFFIC_S, stop.set)
    async with asyncio.TaskGroup() as tasks:
        for member in MEMBERS:
            url = environment.workspace_url(member.workspace)
            tasks.create_task(traffic.simulate(member, url, environment.secrets[member.token_id], stop))
    return traffic.counts


def _settle(found: DemoStack) -> None:
    total = found.counted.total()
    deadline = time.monotonic() + SETTLED_S
    sums: dict[str, Callable[[], float]] = {
        "Prometheus": lambda: found.number("sum(mcp_gateway_tool_calls_total)"),
        "its rules": lambda: found.number("sum(instance_workspace_status:mcp_gateway_tool_calls:sum)"),
        "log records": lambda: len(found.log_records()),
        "traces": lambda: sum(span["kind"] == 2 for span in found.spans()),
        **({"Loki": lambda: sum(len(it["values"]) for it in found.loki(ALL_RECORDS))} if found.stack.loki else {}),
        "ledger": lambda: sum(found.api(one, "/overview")["calls"]["range"] for one in WORKSPACES),
    }
    seen: dict[str, float] = {}
    while time.monotonic() < deadline:
        seen = {name: ask() for name, ask in sums.items()}
        if set(seen.values()) == {total}:
            return
        time.sleep(1)
    raise AssertionError(f"clients counted {total} calls, and after {SETTLED_S:.0f} s: {seen}")

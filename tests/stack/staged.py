"""The native stack with the demo's members at work on it, and how its back ends are asked."""

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
from gateway.demo.environment import BackEnds, Environment, start_environment
from gateway.demo.fixtures import MEMBERS, WORKSPACES
from gateway.demo.traffic import Traffic
from stack.processes import Programs, Stack, running

SEED: Final = 7
TRAFFIC_S: Final = 120.0
"""What a newcomer waits before looking at a dashboard."""
SETTLED_S: Final = 60.0

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """Everything that runs, after the traffic; no call is under way any more."""

    stack: Stack
    environment: Environment
    counted: Counts
    """By the members' clients."""
    began_s: float
    http: httpx.Client

    def prometheus(self, query: str) -> list[Row]:
        """The series of an instant query."""
        return self._rows(f"{self.stack.prometheus}/api/v1/query", query=query)

    def number(self, query: str) -> float:
        """The only series' value."""
        [series] = self.prometheus(query)
        return float(series["value"][1])

    def loki(self, query: str) -> list[Row]:
        """The series of an instant query, or the streams of the last hour with their lines."""
        if query.startswith("{"):
            return self._rows(f"{self.stack.loki}/loki/api/v1/query_range", query=query, since="1h", limit=5000)
        return self._rows(f"{self.stack.loki}/loki/api/v1/query", query=query)

    def alerts(self) -> list[Row]:
        """What Alertmanager has."""
        return list(self.http.get(f"{self.stack.alertmanager}/api/v2/alerts").raise_for_status().json())

    def api(self, workspace: str, path: str, **parameters: str) -> Any:
        """What the analytics API answers."""
        url = f"{self.environment.api_url(workspace)}/analytics{path}"
        bearer = {"Authorization": f"Bearer {self.environment.jwt}"}
        return self.http.get(url, params=parameters, headers=bearer).raise_for_status().json()

    def spans(self) -> list[Row]:
        """Every span that the Collector has passed on, with its attributes and its resource's as plain values."""
        return [
            {**span, "attributes": _plain(span), "resource": _plain(resource["resource"])}
            for line in self.stack.traces.read_text().splitlines()
            for resource in json.loads(line)["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]

    def _rows(self, url: str, **parameters: str | int) -> list[Row]:
        response = self.http.get(url, params=parameters)
        assert response.is_success, f"{parameters}: {response.text}"
        return list(response.json()["data"]["result"])


def _plain(owner: Row) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in owner.get("attributes", ())}


@contextlib.contextmanager
def staged(folder: Path, programs: Programs) -> Iterator[Staged]:
    """Start the stack, let the members work for two minutes, and wait until every back end has every call."""
    with (
        running(folder, programs) as stack,
        anyio.from_thread.start_blocking_portal() as portal,
        httpx.Client(timeout=30) as http,
    ):
        back_ends = BackEnds(observer=stack.observer, otlp=stack.otlp)
        began_s = time.time()
        with portal.wrap_async_context_manager(_start(folder, back_ends)) as environment:
            counted = portal.call(_work, environment)
            found = Staged(stack=stack, environment=environment, counted=counted, began_s=began_s, http=http)
            _settle(found)
            yield found


@contextlib.asynccontextmanager
async def _start(folder: Path, back_ends: BackEnds) -> AsyncIterator[Environment]:
    (folder / "demo").mkdir()
    async with start_environment(folder / "demo", print, asyncio.Event(), back_ends) as environment:
        yield environment


async def _work(environment: Environment) -> Counts:
    traffic, stop = Traffic(SEED), asyncio.Event()
    asyncio.get_running_loop().call_later(TRAFFIC_S, stop.set)
    async with asyncio.TaskGroup() as tasks:
        for member in MEMBERS:
            url = environment.workspace_url(member.workspace)
            tasks.create_task(traffic.simulate(member, url, environment.secrets[member.token_id], stop))
    return traffic.counts


def _settle(found: Staged) -> None:
    total = found.counted.total()
    deadline = time.monotonic() + SETTLED_S
    sums: dict[str, Callable[[], float]] = {
        "Prometheus": lambda: found.number("sum(mcp_gateway_tool_calls_total)"),
        "its rules": lambda: found.number("sum(instance_workspace_status:mcp_gateway_tool_calls:sum)"),
        "Loki": lambda: (
            found.number('sum(count_over_time({service_name="callscope"} | keep service_name [1h]))')
            if False
            else sum(len(stream["values"]) for stream in found.loki('{service_name="callscope"}'))
        ),
        "traces": lambda: sum(span["kind"] == 2 for span in found.spans()),
        "ledger": lambda: sum(found.api(one, "/overview")["calls"]["range"] for one in WORKSPACES),
    }
    seen: dict[str, float] = {}
    while time.monotonic() < deadline:
        seen = {name: ask() for name, ask in sums.items()}
        if set(seen.values()) == {total}:
            return
        time.sleep(1)
    raise AssertionError(f"clients counted {total} calls, and after {SETTLED_S:.0f} s: {seen}")

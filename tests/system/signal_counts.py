"""What each signal counted, as the same kind of count, so that they can be compared by `==`."""

import asyncio
import contextlib
import json
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import duckdb
import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway.observer.signals import ERROR_TYPE
from tests.observer.otlp_collector import Collector
from tests.system.clients import Counts, Outcome
from tests.system.gateway_process import TIMEOUT_S, TLS, Gateway, eventually

DIMENSIONS = "token,server,tool,status,error_type"
METRIC = "mcp_gateway_tool_calls_total"


def from_api(gateway: Gateway) -> Counts:
    """`/groups` of the analytics API."""
    groups = gateway.ask("/analytics/groups", by=DIMENSIONS, period="1h")["groups"]
    return Counts({Outcome(*(group[field] for field in Outcome._fields)): group["calls"] for group in groups})


def from_metrics(gateway: Gateway) -> Counts:
    """`/metrics`, as Prometheus reads it."""
    return Counts(
        {
            _labelled(sample.labels): int(sample.value)
            for family in text_string_to_metric_families(gateway.metrics())
            for sample in family.samples
            if sample.name == METRIC and sample.value
        }
    )


def from_ledger(gateway: Gateway) -> Counts:
    """The ledger's file, once the gateway is stopped."""
    with duckdb.connect(str(gateway.data / "ledger.duckdb"), read_only=True) as ledger:
        rows = ledger.execute(
            "select token_id, server_slug, tool_name, status, error_type, count(*) from calls group by all"
        ).fetchall()
    return Counts({Outcome(*row[:-1]): row[-1] for row in rows})


def from_otlp(collector: Collector) -> Counts:
    """The log records that a collector has acknowledged."""
    texts = [
        {attribute.key: attribute.value.string_value for attribute in record.attributes}
        for record in collector.records()
    ]
    return Counts(
        Outcome(text["token_id"], text["server_slug"], text["tool_name"], text["status"], text.get(ERROR_TYPE))
        for text in texts
    )


def _labelled(labels: dict[str, str]) -> Outcome:
    return Outcome(
        labels["token"], labels["server"], labels["tool"], labels["status"], labels.get("error_type") or None
    )


class LiveStream:
    """One reader of the live stream, from before the first call on."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    @property
    def counts(self) -> Counts:
        """What it has seen."""
        return Counts(Outcome(*(call[field] for field in Outcome._fields)) for call in self.calls)


@contextlib.asynccontextmanager
async def live_stream(gateway: Gateway) -> AsyncIterator[LiveStream]:
    """Read the stream while the block runs."""
    stream = LiveStream()
    opened = asyncio.Event()

    async def read(http: httpx.AsyncClient) -> None:
        async with http.stream("GET", f"{gateway.api}/logs/stream", headers=gateway.authorization) as response:
            event = ""
            async for line in response.aiter_lines():
                opened.set()
                if line.startswith("event: "):
                    event = line.removeprefix("event: ")
                elif line.startswith("data: ") and event == "call":
                    stream.calls.append(json.loads(line.removeprefix("data: ")))

    async with httpx.AsyncClient(timeout=TIMEOUT_S, verify=TLS) as http, asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read(http))
        await opened.wait()
        try:
            yield stream
        finally:
            reading.cancel()


class Prometheus:
    """A running Prometheus that scrapes a gateway."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, promql: str) -> list[dict[str, Any]]:
        """An instant query: its vector."""
        response = httpx.get(f"{self.url}/api/v1/query", params={"query": promql}, timeout=TIMEOUT_S, verify=TLS)
        answer = response.json()
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def counts(self) -> Counts:
        """The counter's raw values."""
        return Counts(
            {
                _labelled(series["metric"]): int(float(series["value"][1]))
                for series in self.query(f"sum by ({DIMENSIONS}) ({METRIC}) > 0")
            }
        )


@contextlib.contextmanager
def prometheus(binary: Path, folder: Path, gateway: Gateway) -> Iterator[Prometheus]:
    """A Prometheus of its own, which scrapes the gateway every second."""
    folder.mkdir()
    job = {"job_name": "callscope", "static_configs": [{"targets": [gateway.observer.removeprefix("http://")]}]}
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    arguments = (f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb", f"--web.listen-address={address}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([binary, *arguments], stdout=log, stderr=log)
    try:
        url = f"http://{address}"
        eventually(lambda: httpx.get(f"{url}/-/ready", verify=TLS).status_code == 200)
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(timeout=TIMEOUT_S)

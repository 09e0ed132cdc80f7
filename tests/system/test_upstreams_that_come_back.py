"""A server that ends is an error while it is away, and no more than that: it is called again when it is there again."""

import contextlib
import os
import shlex
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.system.clients import call, post
from tests.system.gateway_process import STDIO, TIMEOUT_S, Gateway, eventually, running, upstreams


@pytest.mark.parametrize("kind", ["modern", "legacy"])
def test_a_server_over_http_that_is_started_again_is_called_again(tmp_path: Path, kind: str) -> None:
    """A legacy one has forgotten the gateway's session by then."""
    with contextlib.ExitStack() as first, contextlib.ExitStack() as stack:
        url = first.enter_context(upstreams(kind))[kind]
        gateway = stack.enter_context(running(tmp_path, {"it": {"url": url}}, {"alice": {}}))
        assert _outcome(gateway, "it__echo") == "success"

        first.close()

        assert _outcome(gateway, "it__echo") == "upstream_unreachable"
        stack.enter_context(upstreams(kind, port=httpx.URL(url).port or 0))
        assert _outcome(gateway, "it__echo") == "success"


def test_a_server_over_stdio_that_is_killed_fails_the_call_under_way_and_is_started_again(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    command = shlex.join([STDIO["command"], *STDIO["args"]])
    say_pid = f"echo $$$$ > {pid_file}"  # `$$` is the configuration's way to write a dollar sign
    server = {"command": "sh", "args": ["-c", f"{say_pid}; exec {command}"]}
    with running(tmp_path, {"local": server}, {"alice": {}}) as gateway, ThreadPoolExecutor(1) as others:
        assert _outcome(gateway, "local__echo") == "success"
        before = int(pid_file.read_text())
        under_way = others.submit(_outcome, gateway, "local__hang")
        eventually(lambda: _in_flight(gateway) == 1)

        os.kill(before, signal.SIGKILL)

        assert under_way.result(timeout=TIMEOUT_S) == "upstream_unreachable"
        assert eventually(lambda: _outcome(gateway, "local__echo") == "success")
        assert int(pid_file.read_text()) != before


def _outcome(gateway: Gateway, tool: str) -> str:
    """`success`, or the error type that the gateway names."""
    answer = post(gateway, call(tool), "alice").json()
    error_type: str = answer["error"]["data"]["error_type"] if "error" in answer else "success"
    return error_type


def _in_flight(gateway: Gateway) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(gateway.metrics())
        for sample in family.samples
        if sample.name == "mcp_gateway_in_flight_calls"
    )

"""Server processes for tests: small scripts over the standard library, and what is left of them."""

import asyncio
import json
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import UNSET

from gateway.config import StdioServer
from gateway.upstream.base import UpstreamResponse
from gateway.upstream.stdio import StdioUpstream

Start = Callable[..., StdioUpstream]
"""`start(server, max_processes=64, **timings)`: an upstream that the fixture of this name closes."""

PRELUDE = """
import json, os, signal, sys

def read():
    line = sys.stdin.readline()
    return json.loads(line) if line else sys.exit(0)

def write(text):
    sys.stdout.write(text + "\\n")
    sys.stdout.flush()

def say(**members):
    write(json.dumps({"jsonrpc": "2.0", **members}))

def answer(request, result):
    say(id=request["id"], result=result)

def refuse(request):
    say(id=request["id"], error={"code": -32601, "message": "no such method"})

def modern():
    answer(read(), {"supportedVersions": ["2026-07-28"], "capabilities": {}})

def note(path, text):
    with open(path, "a") as file:
        file.write(text + "\\n")
"""

ECHO = """
modern()
while True:
    request = read()
    answer(request, request)
"""


def script(body: str, *args: str, **settings: Any) -> StdioServer:
    """A server that runs `body` behind `PRELUDE`; `sys.argv[1:]` are `args`."""
    program = PRELUDE + textwrap.dedent(body)
    return StdioServer(command=sys.executable, args=["-I", "-S", "-c", program, *args], **settings)


def result(reply: UpstreamResponse) -> Any:
    """What a reply's result says."""
    assert reply.result is not UNSET
    return json.loads(bytes(reply.result))


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for a condition, and fail if it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.005)


def lines(path: Path) -> list[str]:
    """The whole lines that a process has noted so far."""
    return path.read_text().splitlines() if path.exists() else []


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

"""A real observer in a process of its own, with a journal to which a test writes calls."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Self

import httpx
from click.testing import CliRunner, Result

from gateway.analytics.bearer import issue
from gateway.calls import ErrorType, ToolCall
from gateway.commands import commands
from gateway.config import Jwt, load
from gateway.journal import Writer
from gateway.process import Launch
from tests.ledger import records

SECRET: Final = "a secret of the tests that is long enough"
FAILED: Final[dict[str, Any]] = {"status": "error", "error_type": ErrorType.TOOL_ERROR, "error_message": "no such repo"}
WORKSPACES: Final[dict[str, Any]] = {
    "engineering": {
        "plan": "pro",
        "servers": {"github": {"url": "http://127.0.0.1:1/mcp"}, "jira": {"url": "http://127.0.0.1:1/mcp"}},
        "tokens": [{"id": "alice", "name": "Alice Cursor", "sha256": "0" * 64}],
    }
}


def call(number: int, **changes: Any) -> ToolCall:
    """A call of a moment ago; a larger number is a later one."""
    fields = {"call_id": f"c{number}", "timestamp_ns": time.time_ns(), "duration_ms": 30.0, "total_ms": 31.0}
    return records.call(**{**fields, **changes})


def run(*arguments: str, environ: dict[str, str] | None = None) -> Result:
    """A command as it is typed, where no terminal is; an exception would be a traceback."""
    result = CliRunner(env=environ).invoke(commands, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def until(condition: Callable[[], object]) -> None:
    """Wait for it, and not for ever."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        threading.Event().wait(0.02)


class Observer:
    """The process, at one address in all of its lives. A context manager."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as found:
            self._address: tuple[str, int] = found.getsockname()
        self.url = "http://{}:{}".format(*self._address)
        self.config = folder / "callscope.yaml"
        tree = {
            "observer": {"listen": "{}:{}".format(*self._address)},
            "api": {"jwt": {"secret": SECRET}},
            "workspaces": WORKSPACES,
            **settings,
        }
        self.config.write_text(json.dumps(tree))
        data = load(self.config).data_dir
        self._run_file = data / "run" / "observer.pid"
        self._writer = Writer(data / "journal", "relay-0")
        self._read_end, self._write_end = os.pipe()
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._writer.close()
        os.close(self._read_end)
        os.close(self._write_end)

    def start(self) -> None:
        """Start it, and wait until it serves."""
        with socket.create_server(self._address) as listening:
            launch = Launch(
                config=self.config, fd=listening.fileno(), run_file=self._run_file, parent_pipe=self._read_end
            )
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway.observer", *launch.arguments()],
                pass_fds=(launch.fd, launch.parent_pipe),
            )
            try:
                until(lambda: self._process.poll() is not None or self._serves())
                assert self._process.poll() is None, "the observer did not start: its log says why"
            except AssertionError:
                self.kill()
                raise

    def _serves(self) -> bool:
        return self._run_file.exists() and self._run_file.read_text() == f"{self._process.pid}\n"

    def kill(self) -> None:
        """`kill -9`: nobody listens at the address any more."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def write(self, calls: Iterable[ToolCall]) -> None:
        """Into the journal, as a relay does it."""
        for each in calls:
            self._writer.append(each)

    def has(self, calls: int) -> bool:
        """Whether the ledger counts so many."""
        bearer = issue(Jwt(secret=SECRET), ["engineering"], 60, time.time())
        answer = httpx.get(
            f"{self.url}/api/community/mcp/workspaces/engineering/analytics/overview",
            headers={"Authorization": f"Bearer {bearer}"},
        )
        return bool(answer.json()["calls"]["range"] == calls)

    def holding(self, calls: Iterable[ToolCall]) -> Self:
        """Write the first calls, and wait until the ledger has them."""
        given = list(calls)
        self.write(given)
        until(lambda: self.has(len(given)))
        return self

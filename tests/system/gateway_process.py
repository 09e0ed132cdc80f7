"""Processes of a system test: MCP servers, and a real `callscope serve` in front of them. Each ends with this one."""

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

from gateway import tokens
from gateway.analytics import bearer
from gateway.config import Jwt
from gateway.demo.environment import READY

SCRIPTED: Final = Path(__file__).parent.parent / "scripted_servers" / "scripted.py"
STDIO: Final[dict[str, Any]] = {"command": sys.executable, "args": [str(SCRIPTED), "stdio"]}
JWT: Final = Jwt(secret="a secret of the tests")
WORKSPACE: Final = "engineering"
TLS: Final = ssl.create_default_context()
"""For clients: each would make one of its own, in 40 ms, though nothing here uses TLS."""
TIMEOUT_S: Final = 60.0
"""How long a test waits for what has to happen, on however busy a machine."""

Found = TypeVar("Found")


def eventually(look: Callable[[], Found]) -> Found:
    """The first truthy thing that `look` returns. An error of it is raised only when the time is up."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        late = time.monotonic() > deadline
        try:
            found = look()
            if found:
                return found
            assert not late, f"not within {TIMEOUT_S:g} s, but {found!r}"
        except (AssertionError, OSError, httpx.HTTPError):
            if late:
                raise
        threading.Event().wait(0.02)


@contextlib.contextmanager
def upstreams(*kinds: str, port: int = 0) -> Iterator[dict[str, str]]:
    """Scripted MCP servers over HTTP: their URLs, by kind."""
    with contextlib.ExitStack() as started:
        processes = {kind: started.enter_context(_scripted(kind, port)) for kind in kinds}
        yield {kind: process.stdout.readline().strip() for kind, process in processes.items() if process.stdout}


@contextlib.contextmanager
def _scripted(kind: str, port: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, SCRIPTED, kind, f"--port={port}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.communicate(timeout=TIMEOUT_S)


class Gateway:
    """`callscope serve` with one workspace; `secrets` are its members' tokens, by id."""

    def __init__(
        self,
        folder: Path,
        servers: Mapping[str, Mapping[str, Any]],
        members: Mapping[str, Mapping[str, Any]],
        *,
        workers: int = 1,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.data = folder / "data"
        self.config = folder / "callscope.yaml"
        self.secrets: dict[str, str] = {}
        self._entries: dict[str, dict[str, Any]] = {}
        self._servers = dict(servers)
        self._settings = dict(settings or {})
        self._workers = workers
        self._log = folder / "serve.log"
        for token_id, entry in members.items():
            created = tokens.create()
            self.secrets[token_id] = created.secret
            self._entries[token_id] = {"id": token_id, "name": token_id.title(), "sha256": created.sha256, **entry}
        self.write()
        self.start()

    def start(self) -> None:
        """Start it, as it is done at first and after it was stopped or killed, and wait until it serves."""
        with self._log.open("ab") as log:
            serve = ["gateway", "serve", "--config", str(self.config), "--workers", str(self._workers)]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway.demo.kill_on_eof", sys.executable, "-m", *serve],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        ready = READY.search(self._process.stdout.readline())
        assert ready, self.log()
        self.relay, self.observer = ready["relay"], ready["observer"]
        self.url = f"{self.relay}/ws/{WORKSPACE}"
        self.api = f"{self.observer}/api/community/mcp/workspaces/{WORKSPACE}"
        self.authorization = {"Authorization": f"Bearer {bearer.issue(JWT, [WORKSPACE], 3600, time.time())}"}

    def write(self, *, without: str = "", text: str | None = None) -> None:
        """Write the configuration, without one token, or any text in its place; as editors do, by a new file."""
        tree = {
            "listen": "127.0.0.1:0",
            "observer": {"listen": "127.0.0.1:0"},
            "data_dir": "data",
            "api": {"jwt": {"secret": JWT.secret}},
            "metrics": {"birth_interval": 0},
            "workspaces": {
                WORKSPACE: {
                    "plan": "enterprise",
                    "rate_limit": None,
                    "servers": self._servers,
                    "tokens": [entry for token_id, entry in self._entries.items() if token_id != without],
                },
                "elsewhere": {},
            },
            **self._settings,
        }
        draft = self.config.with_suffix(".draft")
        draft.write_text(json.dumps(tree) if text is None else text)
        draft.replace(self.config)

    def log(self) -> str:
        """What its processes said."""
        return self._log.read_text()

    def pid(self, name: str) -> int:
        """The process that serves as `observer`, `relay-0`, …"""
        return int((self.data / "run" / f"{name}.pid").read_text())

    def kill(self, name: str) -> None:
        """`kill -9` one of its processes."""
        os.kill(self.pid(name), signal.SIGKILL)

    def stop(self) -> int:
        """Stop it in order, if it was not killed: the exit status, once all of its processes have ended."""
        self._process.communicate(timeout=TIMEOUT_S)
        return self._process.returncode

    def ask(self, path: str, **parameters: str) -> Any:
        """A GET of the programmatic interface: its JSON."""
        response = httpx.get(
            f"{self.api}{path}", params=parameters, headers=self.authorization, timeout=TIMEOUT_S, verify=TLS
        )
        assert response.status_code == 200, response.text
        return response.json()

    def metrics(self) -> str:
        """The observer's `/metrics` in the Prometheus text format."""
        headers = {"Accept": "text/plain"}
        return httpx.get(f"{self.observer}/metrics", headers=headers, timeout=TIMEOUT_S, verify=TLS).text


@contextlib.contextmanager
def running(
    folder: Path,
    servers: Mapping[str, Mapping[str, Any]],
    members: Mapping[str, Mapping[str, Any]],
    *,
    workers: int = 1,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Gateway]:
    """A gateway that serves; it is stopped at the end."""
    gateway = Gateway(folder, servers, members, workers=workers, settings=settings)
    try:
        yield gateway
    finally:
        gateway.stop()

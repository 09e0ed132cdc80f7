"""The demo's processes: MCP servers, and a real `callscope serve` in front of them, in a folder of their own."""

import asyncio
import contextlib
import json
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway import tokens
from gateway.analytics import bearer
from gateway.config import Jwt
from gateway.demo.fixtures import GUEST, MEMBERS, WORKSPACES, Member
from gateway.errors import StartError
from gateway.process import wait_or_kill

HOST: Final = "127.0.0.1"
RELAY_PORT: Final = 8080
OBSERVER_PORT: Final = 9464
JWT_TTL_S: Final = 30 * 86_400
UPSTREAM_TIMEOUT_S: Final = 3
READY_TIMEOUT_S: Final = 60
END_TIMEOUT_S: Final = 15
READY: Final = re.compile(r"relay (?P<relay>http://\S+?)/ws/<workspace>, observer (?P<observer>http://\S+?)/metrics")
_SERVERS: Final = {"github": "modern", "billing": "legacy", "warehouse": "misbehaving"}
_MODULE: Final = "gateway.demo.servers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The addresses of a running gateway, and the keys to it."""

    relay: str
    """`http://host:port`."""
    observer: str
    secrets: Mapping[str, str]
    """Each member's token, by its id."""
    jwt: str
    """For every workspace of the analytics API."""

    def workspace_url(self, workspace: str) -> str:
        return f"{self.relay}/ws/{workspace}"

    def api_url(self, workspace: str) -> str:
        return f"{self.observer}/api/community/mcp/workspaces/{workspace}"


@contextlib.asynccontextmanager
async def start_environment(
    folder: Path,
    say: Callable[[str], None],
    stop: asyncio.Event,
    *,
    observer: str | None = None,
    otlp: str | None = None,
) -> AsyncIterator[Environment]:
    """Start everything in `folder`, and end it at the end of the block; `say` gets messages for a person.

    `observer` is the address that a Prometheus expects, `host:port`; `otlp` the endpoint for traces and log records.

    Raises:
        StartError: the gateway did not become ready (the message has the end of its log), or `stop` was set.
    """
    async with contextlib.AsyncExitStack() as resources:
        processes, urls = [], {}
        for slug, kind in _SERVERS.items():
            with socket.create_server((HOST, 0)) as sock:
                urls[slug] = "http://{}:{}/mcp".format(*sock.getsockname())
                arguments = ["-m", _MODULE, kind, f"--fd={sock.fileno()}"]
                started = _process(arguments, folder / f"{slug}.log", descriptors=[sock.fileno()])
                processes.append(await resources.enter_async_context(started))
        unused = resources.enter_context(socket.socket())  # bound, but it does not listen: connections are refused
        unused.bind((HOST, 0))
        urls["mail"] = "http://{}:{}/mcp".format(*unused.getsockname())

        created = {member.token_id: tokens.create() for member in (*MEMBERS, GUEST)}
        digests = {token_id: token.sha256 for token_id, token in created.items()}
        key = Jwt(secret=secrets.token_urlsafe(32))
        addresses = {
            "relay": _free_address(RELAY_PORT, "relay", say),
            "observer": observer or _free_address(OBSERVER_PORT, "observer", say),
        }
        tree = configuration(addresses, urls, digests, key.secret or "")
        if otlp is not None:
            tree["otlp"] = {"endpoint": otlp}
        if observer is None:
            tree["metrics"] = {
                "birth_interval": 2
            }  # without a Prometheus, which needs 10 s, the first numbers come soon
        config, log = folder / "callscope.yaml", folder / "serve.log"
        config.write_text(json.dumps(tree, indent=2))
        config.chmod(0o600)
        serve = ["-m", "gateway.demo.kill_on_eof", sys.executable, "-m", "gateway", "serve", "--config", str(config)]
        gateway = await resources.enter_async_context(_process(serve, log))
        resources.callback(_close_stdin, *processes, gateway)  # all begin to end at once, then each is waited for
        ready = await _until_ready(gateway, log, stop)
        yield Environment(
            relay=ready["relay"],
            observer=ready["observer"],
            secrets={token_id: token.secret for token_id, token in created.items()},
            jwt=bearer.issue(key, sorted(WORKSPACES), ttl_s=JWT_TTL_S, now=time.time()),
        )


def configuration(
    addresses: Mapping[str, str], urls: Mapping[str, str], digests: Mapping[str, str], jwt_secret: str
) -> dict[str, Any]:
    """The content of the demo's configuration file; the gateway itself starts the server `files`, on stdio."""

    def server(slug: str) -> dict[str, Any]:
        if slug == "files":
            return {"command": sys.executable, "args": ["-m", _MODULE, "stdio"], "timeout": UPSTREAM_TIMEOUT_S}
        return {"url": urls[slug], "timeout": UPSTREAM_TIMEOUT_S}

    def token(member: Member) -> dict[str, Any]:
        entry = {"id": member.token_id, "name": member.name, "kind": member.kind, "sha256": digests[member.token_id]}
        return entry | ({"rate_limit": member.rate_limit} if member.rate_limit else {})

    return {
        "listen": addresses["relay"],
        "observer": {"listen": addresses["observer"]},
        "data_dir": "data",
        "api": {"jwt": {"secret": jwt_secret}},
        "workspaces": {
            workspace: {
                "name": workspace.capitalize(),
                "plan": "pro",
                "rate_limit": None,
                "servers": {slug: server(slug) for slug in servers},
                "tokens": [token(member) for member in (*MEMBERS, GUEST) if member.workspace == workspace],
            }
            for workspace, servers in WORKSPACES.items()
        },
    }


def _free_address(port: int, what: str, say: Callable[[str], None]) -> str:
    """The address with this port, or with port 0 if it cannot be used: then the system chooses a free one."""
    try:
        with socket.create_server((HOST, port)):
            return f"{HOST}:{port}"
    except OSError as error:
        say(f"port {port} cannot be used ({os.strerror(error.errno or 0)}): the {what} takes a free one")
        return f"{HOST}:0"


@contextlib.asynccontextmanager
async def _process(
    arguments: Sequence[str], log: Path, *, descriptors: Sequence[int] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process that ends when its standard input is closed; `log` gets its stderr."""
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C reaches the demo alone, which ends the others after the traffic
        )
    try:
        yield process
    finally:
        _close_stdin(process)
        await wait_or_kill(process, END_TIMEOUT_S)


def _close_stdin(*processes: asyncio.subprocess.Process) -> None:
    for process in processes:
        if process.stdin is not None:
            process.stdin.close()


async def _until_ready(gateway: asyncio.subprocess.Process, log: Path, stop: asyncio.Event) -> Mapping[str, str]:
    """The addresses in the only line that the gateway prints, which it prints when it is ready."""
    assert gateway.stdout is not None  # noqa: S101 - it was opened as a pipe
    line = asyncio.ensure_future(gateway.stdout.readline())
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((line, stopped), timeout=READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        match = READY.search(line.result().decode()) if line.done() else None
    finally:
        line.cancel()
        stopped.cancel()
    if match is not None:
        return match.groupdict()
    if stop.is_set():
        raise StartError("stopped before the gateway was ready")
    problem = "ended before it was ready" if line.done() else f"was not ready within {READY_TIMEOUT_S} s"
    raise StartError(f"the gateway {problem}; its log ends:\n{log.read_text()[-2000:]}")

"""The relay, put together: configuration in, an ASGI application and its background work out."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Final

from starlette.types import Receive, Scope, Send

from gateway.config import Config, HttpServer, changes
from gateway.errors import ConfigError
from gateway.journal import Writer
from gateway.mcp import jsonrpc
from gateway.relay.answering import Methods
from gateway.relay.auth import Admission
from gateway.relay.deadlines import CancelScopes
from gateway.relay.endpoint import Endpoint
from gateway.relay.heartbeat import HeartbeatWriter
from gateway.relay.input_required import PendingCalls
from gateway.relay.legacy_clients import LegacyClients
from gateway.relay.quota_enforcement import Enforcement
from gateway.relay.redaction import Redactor, secrets_of
from gateway.relay.registry import Pools, Server, WorkspaceRegistry
from gateway.relay.responses import send_json
from gateway.relay.session_subscriptions import SessionSubscriptions
from gateway.relay.sessions import Sessions
from gateway.relay.signing_key import new_key
from gateway.relay.subscription_registry import SubscriptionRegistry
from gateway.relay.subscriptions_listen import SubscriptionStreams
from gateway.relay.tool_call import ToolCalls
from gateway.upstream.base import UpstreamError

logger = logging.getLogger(__name__)

_HEALTH_PATHS: Final = frozenset({"/healthz", "/readyz"})
PROBE_S: Final = 30.0
"""How often an upstream is asked for its tools without a client's asking: its health, and names for labels."""


class Relay:
    """The ASGI application: MCP, `/healthz` and `/readyz`."""

    def __init__(self, config: Config, journal: Writer, key: bytes | None = None) -> None:
        """`key` signs what clients bring back; without one, it is good for this process only."""
        key = key or new_key()
        self._pools = Pools()
        self._secrets: set[str] = set()
        self._recorder = HeartbeatWriter(
            journal, replica=socket.gethostname(), fsync_interval=config.journal.fsync_interval
        )
        self._directory = WorkspaceRegistry(config, self._pools, self._recorder.operation)
        self._enforcement = Enforcement(config, journal, self._recorder.unsure)
        cancel_scopes = CancelScopes()
        self._sessions = Sessions(key)
        self._pending_calls = PendingCalls(key)
        self._changes = SubscriptionRegistry(lambda: self._directory)
        self._listening = SubscriptionStreams(lambda: self._directory, self._recorder, self._changes)
        following = SessionSubscriptions(self._changes)
        self._endpoint = Endpoint(
            self._directory,
            self._recorder,
            ToolCalls(self._recorder, self._redactor(config), cancel_scopes, self._pending_calls),
            Methods(self._pending_calls, following, sessions=config.requests.sessions),
            _admission(config),
            LegacyClients(self._sessions, cancel_scopes, following, enabled=config.requests.sessions),
            cancel_scopes,
            max_bytes=config.requests.max_bytes,
        )
        self._endpoint.listening = self._listening
        self._endpoint.quota = self._enforcement.quota
        self._retired: set[asyncio.Task[None]] = set()
        self._probes: asyncio.Event = asyncio.Event()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve MCP, but for the two paths that a load balancer asks."""
        if scope["path"] in _HEALTH_PATHS:
            return send_json(send, 200, jsonrpc.encode({"status": "ok"}))
        return self._endpoint(scope, receive, send)

    def apply(self, config: Config) -> None:
        """Take a new configuration: calls under way end on the servers on which they began."""
        before = self._directory
        self._directory = WorkspaceRegistry(config, self._pools, self._recorder.operation, before)
        self._endpoint.directory = self._directory
        self._endpoint.max_bytes = config.requests.max_bytes
        self._endpoint.admission = _admission(config)
        self._endpoint.legacy.enabled = self._endpoint.methods.sessions = config.requests.sessions
        self._endpoint.tool_calls.redactor = self._redactor(config)
        self._enforcement.apply(config)
        self._endpoint.quota = self._enforcement.quota
        kept = set(self._directory.servers())
        for server in before.servers():
            if server not in kept:
                task = asyncio.create_task(_retire(server))
                self._retired.add(task)
                task.add_done_callback(self._retired.discard)
        known = {principal[:2] for principal in self._directory.tokens.values()}
        self._sessions.keep(lambda owner: owner[:2] in known)
        self._changes.follow()
        self._probes.set()

    @contextlib.asynccontextmanager
    async def running(self, config_path: Path | None = None, stop: asyncio.Event | None = None) -> AsyncIterator[None]:
        """Beat, probe and follow the configuration file, until left; then close every upstream.

        At `stop`, streams end that would go on without end.
        """
        await self._enforcement.begin()
        tasks = [asyncio.create_task(self._recorder.beat(self._servers))]
        tasks.append(asyncio.create_task(self._probe()))
        tasks.append(asyncio.create_task(self._enforcement.watch()))
        if config_path is not None:
            tasks.append(asyncio.create_task(self._follow(config_path)))
        if stop is not None:
            tasks.append(asyncio.create_task(self._end_streams(stop)))
        try:
            yield
        finally:
            self._listening.close()
            self._sessions.close()
            self._pending_calls.close()
            for task in (*tasks, *self._retired):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(
                *self._retired,
                *(server.close() for server in self._directory.servers()),
                return_exceptions=True,
            )
            self._pools.close()

    def _redactor(self, config: Config) -> Redactor:
        """A secret that was changed is still one: calls under way may have been made with it."""
        self._secrets |= secrets_of(config)
        return Redactor(config.redaction.patterns, self._secrets, max_bytes=config.redaction.max_bytes)

    def _servers(self) -> Iterator[Server]:
        """The servers that there are now; the directory may have been replaced since."""
        return self._directory.servers()

    async def _follow(self, path: Path) -> None:
        async for change in changes(path):
            if isinstance(change, ConfigError):
                for mistake in change.mistakes:
                    logger.error("the changed configuration is refused: %s: %s", change.source, mistake)
            else:
                self.apply(change)
                logger.info("the changed configuration holds")

    async def _end_streams(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._listening.close()
        self._sessions.close()

    async def _probe(self) -> None:
        """List the tools of every server over HTTP, and of those over stdio that run already, now and then."""
        while True:
            listings = [
                server.catalog.list()
                for server in self._directory.servers()
                if isinstance(server.settings, HttpServer) or server.upstream.era is not None
            ]
            for outcome in await asyncio.gather(*listings, return_exceptions=True):
                if isinstance(outcome, BaseException) and not isinstance(outcome, UpstreamError):
                    logger.error("an upstream could not be probed", exc_info=outcome)
            self._sessions.sweep()
            self._probes.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_S):
                    await self._probes.wait()


def _admission(config: Config) -> Admission:
    return Admission(allowed_origins=tuple(config.requests.allowed_origins), sessions=config.requests.sessions)


async def _retire(server: Server) -> None:
    """Close a server that the configuration has no more, when the calls that it may still have are over."""
    try:
        await asyncio.sleep(server.timeout)
    finally:
        await server.close()

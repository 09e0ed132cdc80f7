"""Assembles the relay from a configuration: the ASGI application and its background tasks."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.types import Receive, Scope, Send

from gateway.config import Config, HttpServer, changes
from gateway.errors import ConfigError
from gateway.journal import Writer
from gateway.mcp import jsonrpc
from gateway.mcp.subscriptions import MAX_RESOURCES
from gateway.relay.deadlines import CancelScopes
from gateway.relay.endpoint import Endpoint
from gateway.relay.heartbeat import HeartbeatWriter
from gateway.relay.input_required import PendingCalls
from gateway.relay.legacy_clients import LegacyClients
from gateway.relay.methods import Methods
from gateway.relay.quota import QuotaEnforcement
from gateway.relay.redaction import Redactor, secrets_of
from gateway.relay.registry import Pools, Server, WorkspaceRegistry
from gateway.relay.relay_state import RelayState
from gateway.relay.responses import send_json
from gateway.relay.session_subscriptions import SessionSubscriptions
from gateway.relay.sessions import Sessions
from gateway.relay.signing_key import new_key
from gateway.relay.subscription_registry import SubscriptionRegistry
from gateway.relay.subscriptions_listen import SubscriptionStreams
from gateway.relay.tool_call import ToolCalls
from gateway.upstream.base import DEFAULT_TIMINGS, UpstreamError, UpstreamTimings

logger = logging.getLogger(__name__)

_HEALTH_PATHS: Final = frozenset({"/healthz", "/readyz"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Times and bounds that no configuration sets. Tests have shorter ones."""

    probe_interval_s: float = 30.0
    """How often the tools of each server are listed, to know whether it is up and its tools' names."""
    first_snapshot_wait_s: float = 5.0
    """How long a start is held up for the first quota snapshot, with `usage.fail: closed`."""
    keep_alive_s: float = 15.0
    """After which a silent event stream carries a comment."""
    max_streams: int = 32
    """`subscriptions/listen` streams that one token may have open."""
    max_resources: int = MAX_RESOURCES
    """Subscriptions of one legacy session."""
    upstream: UpstreamTimings = DEFAULT_TIMINGS


class Relay:
    """The ASGI application: MCP, `/healthz` and `/readyz`."""

    def __init__(self, config: Config, journal: Writer, key: bytes | None = None, *, tuning: Tuning = Tuning()) -> None:
        """`key` signs what clients keep for the relay; without one, that is valid for this process only."""
        key = key or new_key()
        self._tuning = tuning
        self._pools = Pools()
        self._secrets: set[str] = set()
        self._heartbeat = HeartbeatWriter(
            journal, replica=socket.gethostname(), fsync_interval=config.journal.fsync_interval
        )
        self._quota_enforcement = QuotaEnforcement(
            config.data_dir, journal, self._heartbeat.count_unknown_usage, first_wait_s=tuning.first_snapshot_wait_s
        )
        cancel_scopes = CancelScopes()
        self._sessions = Sessions(key)
        self._pending_calls = PendingCalls(key)
        self._subscriptions = SubscriptionRegistry(lambda: self._state.registry)
        self._streams = SubscriptionStreams(
            lambda: self._state.registry,
            self._heartbeat,
            self._subscriptions,
            max_streams=tuning.max_streams,
            keep_alive_s=tuning.keep_alive_s,
        )
        session_subscriptions = SessionSubscriptions(
            self._subscriptions, max_resources=tuning.max_resources, keep_alive_s=tuning.keep_alive_s
        )
        legacy = LegacyClients(self._sessions, cancel_scopes, session_subscriptions)
        self._endpoint = Endpoint(
            self._state_of(config),
            self._heartbeat,
            ToolCalls(self._heartbeat, cancel_scopes, self._pending_calls),
            Methods(self._heartbeat, cancel_scopes, self._pending_calls, legacy, session_subscriptions),
            self._streams,
            legacy,
        )
        self._closing: set[asyncio.Task[None]] = set()
        """Of servers that the configuration no longer has."""
        self._reloaded = asyncio.Event()

    @property
    def _state(self) -> RelayState:
        return self._endpoint.state

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["path"] in _HEALTH_PATHS:
            return send_json(send, 200, jsonrpc.encode({"status": "ok"}))
        return self._endpoint(scope, receive, send)

    def apply(self, config: Config) -> None:
        """Use another configuration from now on. Requests in progress keep to the one with which they began."""
        before = self._state.registry
        self._endpoint.state = self._state_of(config, before)
        registry = self._state.registry
        for server in set(before.servers()) - set(registry.servers()):
            task = asyncio.create_task(_close_later(server))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        tokens = {principal[:2] for principal in registry.tokens.values()}
        self._sessions.keep(lambda owner: owner[:2] in tokens)
        self._subscriptions.reload()
        self._reloaded.set()

    @contextlib.asynccontextmanager
    async def running(self, config_path: Path | None = None, stop: asyncio.Event | None = None) -> AsyncIterator[None]:
        """Run the background tasks in the block; at its end, close every upstream.

        `stop` ends the notification streams, which otherwise would hold up a graceful shutdown.
        """
        await self._quota_enforcement.prepare()
        work = [self._heartbeat.run(self._servers), self._probe(), self._quota_enforcement.run()]
        if config_path is not None:
            work.append(self._reload_on_change(config_path))
        if stop is not None:
            work.append(self._end_streams(stop))
        tasks = [asyncio.create_task(one) for one in work]
        try:
            yield
        finally:
            self._streams.close()
            self._sessions.close()
            self._pending_calls.close()
            for task in (*tasks, *self._closing):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*self._closing, *(one.close() for one in self._servers()), return_exceptions=True)
            self._pools.close()

    def _servers(self) -> Iterator[Server]:
        return self._state.registry.servers()

    def _state_of(self, config: Config, before: WorkspaceRegistry | None = None) -> RelayState:
        # A replaced secret stays redacted: calls in progress may have been made with it.
        self._secrets |= secrets_of(config)
        return RelayState(
            registry=WorkspaceRegistry(config, self._pools, self._heartbeat.record, self._tuning.upstream, before),
            redactor=Redactor(config.redaction.patterns, self._secrets, max_bytes=config.redaction.max_bytes),
            quota=self._quota_enforcement.quota_of(config),
            allowed_origins=tuple(config.requests.allowed_origins),
            sessions=config.requests.sessions,
            max_bytes=config.requests.max_bytes,
        )

    async def _reload_on_change(self, path: Path) -> None:
        async for change in changes(path):
            if isinstance(change, ConfigError):
                for mistake in change.mistakes:
                    logger.error("the changed configuration is refused: %s: %s", change.source, mistake)
            else:
                self.apply(change)
                logger.info("the changed configuration is in use")

    async def _end_streams(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._streams.close()
        self._sessions.close()

    async def _probe(self) -> None:
        """List the tools of all servers over HTTP, and of those over stdio that run already, every 30 seconds."""
        while True:
            listings = [
                server.catalog.list()
                for server in self._servers()
                if isinstance(server.settings, HttpServer) or server.upstream.era is not None
            ]
            for outcome in await asyncio.gather(*listings, return_exceptions=True):
                if isinstance(outcome, BaseException) and not isinstance(outcome, UpstreamError):
                    logger.error("the probe of a server failed", exc_info=outcome)
            self._sessions.sweep()
            self._subscriptions.retry()
            self._reloaded.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._tuning.probe_interval_s):
                    await self._reloaded.wait()


async def _close_later(server: Server) -> None:
    """Close a server that the configuration no longer has, when its last calls must have ended."""
    try:
        await asyncio.sleep(server.timeout)
    finally:
        await server.close()

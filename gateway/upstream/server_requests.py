"""The requests that a legacy server sends to its client (elicitation, sampling, roots): passed on to it, or refused.

Law: every request of the server that has an id gets at most one response, and none once the request that it belongs to
is over. Source: specification 2025-11-25, basic/index and client/*.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from msgspec import UNSET, Raw

from gateway.errors import CallscopeError
from gateway.mcp import cancellation, capabilities, jsonrpc
from gateway.mcp.capabilities import InvalidInputRequestError
from gateway.mcp.jsonrpc import Id, Params
from gateway.upstream.base import Client, UpstreamResponse

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 16
"""Requests that may wait for the client at a time while one request of ours is under way."""


class ServerRequests:
    """The server's requests while one request of ours is under way."""

    __slots__ = ("_client", "_respond", "_waiting")

    def __init__(self, client: Client | None, respond: Callable[[bytes], None]) -> None:
        self._client = client
        self._respond = respond
        self._waiting: dict[Id, asyncio.Task[None]] = {}

    def receive(self, message: jsonrpc.Message) -> None:
        """Answer `ping`, pass on what the client has declared, and refuse all else."""
        request_id, method = message.id, message.method
        if request_id is UNSET or method is UNSET or request_id in self._waiting:
            return
        if request_id is None:
            self._refuse(None, jsonrpc.INVALID_REQUEST, "'id' must not be null")
            return
        if method == "ping":
            self._respond(jsonrpc.result(request_id, jsonrpc.EMPTY_OBJECT))
            return
        params = jsonrpc.raw(message.params) if message.params is not UNSET else jsonrpc.EMPTY_OBJECT
        if self._client is None:
            self._refuse(request_id, jsonrpc.METHOD_NOT_FOUND, f"the gateway does not serve {method}")
            return
        reason = self._reason_against(self._client, method, params)
        if reason is not None:
            self._refuse(request_id, jsonrpc.METHOD_NOT_FOUND, reason)
            return
        task = asyncio.create_task(self._ask(self._client, request_id, method, params))
        self._waiting[request_id] = task
        task.add_done_callback(lambda _: self._waiting.pop(request_id, None))

    def cancel(self, params: Params) -> None:
        """Take the server's `notifications/cancelled`: it does not wait for a response any more."""
        cancelled = cancellation.read(params)
        task = self._waiting.get(cancelled.request_id) if cancelled is not None else None
        if task is not None:
            task.cancel()

    def close(self) -> None:
        """Our request is over, and so are the requests that belong to it."""
        for task in list(self._waiting.values()):
            task.cancel()

    def _reason_against(self, client: Client, method: str, params: Raw) -> str | None:
        try:
            missing = capabilities.missing_capability(method, params, capabilities.read_client(client.capabilities))
        except InvalidInputRequestError as error:
            return f"the gateway does not serve {method}: {error}"
        if missing is not None:
            return f"the client did not declare the capability that {method} needs"
        return "too many requests wait for the client" if len(self._waiting) >= MAX_WAITING else None

    async def _ask(self, client: Client, request_id: Id, method: str, params: Raw) -> None:
        try:
            reply = await client.ask(method, params)
        except CallscopeError as error:
            self._refuse(request_id, jsonrpc.INTERNAL_ERROR, str(error))
        except Exception:
            logger.exception("%s could not be passed on to the client", method)
            self._refuse(request_id, jsonrpc.INTERNAL_ERROR, "the request could not be passed on to the client")
        else:
            if reply.error is not UNSET:
                self._respond(jsonrpc.error(request_id, reply.error))
            else:
                self._respond(jsonrpc.result(request_id, _result_of(reply)))

    def _refuse(self, request_id: Id | None, code: int, message: str) -> None:
        self._respond(jsonrpc.error(request_id, jsonrpc.error_object(code, message)))


def _result_of(reply: UpstreamResponse) -> Raw:
    return reply.result if reply.result is not UNSET else jsonrpc.EMPTY_OBJECT

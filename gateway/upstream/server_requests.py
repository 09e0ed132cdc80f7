"""What a legacy server asks its client in the midst of a request: carried to that client, or refused.

Its law: every request of the server's that has an id gets at most one answer, and none any more when its request is
over. Source: specification 2025-11-25, basic/index and client/*.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from msgspec import UNSET, Raw

from gateway.errors import CallscopeError
from gateway.mcp import capabilities, jsonrpc
from gateway.mcp.capabilities import InvalidInputRequestError
from gateway.mcp.jsonrpc import Id
from gateway.upstream.base import Client, UpstreamResponse

logger = logging.getLogger(__name__)

MAX_QUESTIONS: Final = 16
"""Of one request that may wait for their answers at a time."""

Answer = Callable[[bytes], None]
"""Takes a JSON-RPC response for the server."""


class ServerRequests:
    """The questions of a server while one request with it lasts."""

    __slots__ = ("_answer", "_client", "_waiting")

    def __init__(self, client: Client | None, answer: Answer) -> None:
        self._client = client
        self._answer = answer
        self._waiting: dict[Id, asyncio.Task[None]] = {}

    def take(self, message: jsonrpc.Message) -> None:
        """Answer `ping`; hand on what the client can be asked; refuse all else."""
        request_id, method = message.id, message.method
        if request_id is UNSET or method is UNSET:
            return
        if request_id is None:
            self._answer(jsonrpc.error(None, jsonrpc.error_object(jsonrpc.INVALID_REQUEST, "'id' must not be null")))
            return
        if method == "ping":
            self._answer(jsonrpc.result(request_id, jsonrpc.EMPTY_OBJECT))
            return
        params = jsonrpc.raw(message.params) if message.params is not UNSET else jsonrpc.EMPTY_OBJECT
        why_not = self._refusal(method, params)
        if why_not is not None or self._client is None:
            refusal = jsonrpc.error_object(jsonrpc.METHOD_NOT_FOUND, why_not or "")
            self._answer(jsonrpc.error(request_id, refusal))
            return
        if request_id in self._waiting:
            return
        task = asyncio.create_task(self._ask(self._client, request_id, method, params))
        self._waiting[request_id] = task
        task.add_done_callback(lambda _: self._waiting.pop(request_id, None))

    def cancel(self, request_id: Id) -> None:
        """The server waits for this answer no more."""
        task = self._waiting.get(request_id)
        if task is not None:
            task.cancel()

    def end(self) -> None:
        """The request is over, and with it all that was asked in it."""
        for task in list(self._waiting.values()):
            task.cancel()

    def _refusal(self, method: str, params: Raw) -> str | None:
        if self._client is None:
            return f"the gateway does not serve {method}"
        try:
            lacking = capabilities.missing(method, params, capabilities.read_client(self._client.capabilities))
        except InvalidInputRequestError as error:
            return f"the gateway does not serve {method}: {error}"
        if lacking is not None:
            return f"the client did not declare what {method} takes"
        return "too many questions at a time" if len(self._waiting) >= MAX_QUESTIONS else None

    async def _ask(self, client: Client, request_id: Id, method: str, params: Raw) -> None:
        try:
            reply = await client.ask(method, params)
        except CallscopeError as error:
            reply = UpstreamResponse(error=jsonrpc.error_object(jsonrpc.INTERNAL_ERROR, str(error)))
        except Exception:
            logger.exception("a client could not be asked %s", method)
            reply = UpstreamResponse(
                error=jsonrpc.error_object(jsonrpc.INTERNAL_ERROR, "the client could not be asked")
            )
        if reply.error is not UNSET:
            self._answer(jsonrpc.error(request_id, reply.error))
        else:
            value = reply.result if reply.result is not UNSET else jsonrpc.EMPTY_OBJECT
            self._answer(jsonrpc.result(request_id, value))

"""The relay's one public door, a plain ASGI callable: `POST /ws/{slug}`.

Who may come in is decided from the headers, before the body is read; what the body is, in `gateway.mcp.inbound`.
"""

import logging
import time
from typing import Final

from starlette.types import Message, Receive, Scope, Send

from gateway.calls import UNKNOWN, Operation
from gateway.mcp import inbound, jsonrpc
from gateway.relay import operations
from gateway.relay.call import Call
from gateway.relay.limits import RateLimits
from gateway.relay.recorder import Recorder
from gateway.relay.responses import rate_limited, send_empty, send_error, send_json
from gateway.relay.tool_calls import ToolCalls
from gateway.relay.workspaces import PATHS, Directory, Principal, WorkspaceView

logger = logging.getLogger(__name__)

_BEARER: Final = b"bearer "
_JSON: Final = b"application/json"
_LOOPBACK_ORIGINS: Final = ("localhost", "127.0.0.1", "[::1]")
_CHALLENGE: Final = [(b"www-authenticate", b'Bearer error="invalid_token"')]
_INTERNAL: Final = "internal error: the gateway's log has the reason"
_ALLOW_POST: Final = [(b"allow", b"POST")]


class Refused(Exception):  # noqa: N818 - an outcome, raised to end the way early
    """A request that is turned away: the reason's label, and the answer."""

    def __init__(
        self, reason: str, status: int, message: str, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status
        self.headers = headers


class Endpoint:
    """Serves MCP for the workspaces of `directory`, which may be replaced at any time."""

    def __init__(
        self,
        directory: Directory,
        recorder: Recorder,
        tool_calls: ToolCalls,
        *,
        max_bytes: int,
        allowed_origins: tuple[str, ...] = (),
    ) -> None:
        self.directory = directory
        self.tool_calls = tool_calls
        self.max_bytes = max_bytes
        self.allowed_origins = allowed_origins
        self._recorder = recorder
        self._limits = RateLimits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        began = time.perf_counter_ns()
        try:
            lines = scope["headers"]
            headers: dict[bytes, bytes] = dict(lines)
            view, principal = self._admit(scope, headers)
            waiting = time.perf_counter_ns()
            first = await receive()
            body = first.get("body", b"")
            if first.get("more_body", False) or not body or len(body) > self.max_bytes:
                body = await self._body(first, receive, headers)
            began += time.perf_counter_ns() - waiting  # how long a client takes to send is not the gateway's time
            timestamp_ns = time.time_ns()
            message = inbound.read(body, headers, lines)
            if not isinstance(message, inbound.Request):
                await self._other(message, send)
                return
            exceeded = None
            if principal.rate is not None:
                exceeded = self._limits.take(principal.rate, principal.workspace_id, principal.token_id)
            call = Call(view, principal, message, headers, began, timestamp_ns, len(body))
            if message.method == "tools/call":
                await self.tool_calls.serve(call, receive, send, exceeded)
            elif exceeded is not None:
                self._recorder.reject("rate_limited")
                await rate_limited(send, exceeded)
            else:
                await self._operation(call, send)
        except Refused as refused:
            self._recorder.reject(refused.reason)
            await send_error(send, refused.status, str(refused), headers=refused.headers)
        except Exception:
            logger.exception("a request failed in the gateway")
            self._recorder.reject("gateway_error")
            error = jsonrpc.error_object(jsonrpc.INTERNAL_ERROR, _INTERNAL)
            await send_json(send, 500, jsonrpc.error(None, error))

    async def _other(self, message: inbound.Notification | inbound.Rejection, send: Send) -> None:
        if isinstance(message, inbound.Notification):
            await send_empty(send, 202)
        else:
            self._recorder.reject("bad_request")
            error = jsonrpc.error_object(message.code, message.message, message.data)
            await send_json(send, message.status, jsonrpc.error(message.id, error))

    async def _operation(self, call: Call, send: Send) -> None:
        request = call.request
        error_type: str | None = None
        try:
            outcome = await operations.answer(call.view, request)
        except Exception:
            logger.exception("%s failed in the gateway", request.method)
            outcome = operations.Refusal(jsonrpc.INTERNAL_ERROR, _INTERNAL)
        if isinstance(outcome, operations.Refusal):
            error_type = str(outcome.code)
            status = jsonrpc.http_status(request.era, outcome.code)
            body = jsonrpc.error(request.id, jsonrpc.error_object(outcome.code, outcome.message))
        else:
            status, body = 200, jsonrpc.result(request.id, outcome)
        known = error_type != str(jsonrpc.METHOD_NOT_FOUND)
        self._recorder.operation(
            Operation(
                side="server",
                method=request.method if known else UNKNOWN,  # label values never come from a request
                timestamp_ns=call.timestamp_ns,
                duration_ms=(time.perf_counter_ns() - call.began_ns) / 1e6,
                workspace_id=call.view.slug,
                token_id=call.principal.token_id,
                error_type=error_type,
            )
        )
        await send_json(send, status, body)

    # -- admission

    def _admit(self, scope: Scope, headers: inbound.Headers) -> tuple[WorkspaceView, Principal]:
        """Who calls which workspace.

        Raises:
            Refused: not found, wrong method, wrong origin, no token, or another workspace's.
        """
        path: str = scope["path"]
        if b"origin" in headers:
            self._check_origin(headers[b"origin"].decode("latin-1"))
        view = self.directory.paths.get(path)
        if view is None and not path.startswith(PATHS):
            raise Refused("not_found", 404, "no such path: a workspace's URL is /ws/<workspace>")
        if scope["method"] != "POST":
            raise Refused("method_not_allowed", 405, "send MCP messages by POST", _ALLOW_POST)
        principal = self._principal(headers.get(b"authorization", b""))
        if view is None:
            raise Refused("unknown_workspace", 404, "no such workspace: see the configuration's 'workspaces'")
        if principal.workspace_id != view.slug:
            raise Refused("forbidden", 403, f"this token is not for workspace {view.slug!r}")
        media_type = headers.get(b"content-type", b"")
        if media_type != _JSON and media_type.partition(b";")[0].strip().lower() != _JSON:
            raise Refused("bad_request", 415, "the body must be JSON: send Content-Type: application/json")
        return view, principal

    def _principal(self, authorization: bytes) -> Principal:
        if authorization[:7].lower() != _BEARER:
            raise Refused("unauthorized", 401, "no token: send Authorization: Bearer mwt_…", _CHALLENGE)
        principal = self.directory.principal(authorization[7:].strip())
        if principal is None:
            raise Refused("unauthorized", 401, "this token is not known here, or was revoked", _CHALLENGE)
        if principal.expires_at is not None and time.time() >= principal.expires_at:
            raise Refused("unauthorized", 401, "this token has expired: ask for a new one", _CHALLENGE)
        return principal

    def _check_origin(self, origin: str) -> None:
        """A page in a browser may only call if it is listed, or served by this machine (DNS rebinding)."""
        host = origin.partition("://")[2]
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if origin not in self.allowed_origins and name not in _LOOPBACK_ORIGINS:
            raise Refused("forbidden_origin", 403, f"requests.allowed_origins does not have {origin!r}")

    async def _body(self, first: Message, receive: Receive, headers: inbound.Headers) -> bytes:
        """The whole body, of which `first` is the beginning.

        Raises:
            Refused: it is larger than `requests.max_bytes`, or its client went away.
        """
        message = first
        body: bytes = message.get("body", b"")
        if message.get("more_body", False):
            declared = headers.get(b"content-length", b"")
            chunks, size = [body], len(body)
            while message.get("more_body", False):
                if size > self.max_bytes or (declared.isdigit() and int(declared) > self.max_bytes):
                    break
                message = await receive()
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
            body = b"".join(chunks)
        if message["type"] == "http.disconnect":
            raise Refused("disconnected", 400, "the client went away")
        if len(body) > self.max_bytes or message.get("more_body", False):
            raise Refused("too_large", 413, f"the body may have at most {self.max_bytes} bytes")
        return body

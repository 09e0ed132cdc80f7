"""Authenticates an HTTP request by its headers, before its body is read."""

import time
from typing import Final

from starlette.types import Scope

from gateway.calls import Rejection
from gateway.mcp.inbound import Headers
from gateway.mcp.revisions import Era, era_of
from gateway.media_types import accepts
from gateway.relay.registry import PATHS, Principal, WorkspaceRegistry, WorkspaceView
from gateway.relay.relay_state import RelayState
from gateway.relay.sessions import HEADER

_BEARER: Final = b"bearer "
_JSON: Final = b"application/json"
_USUAL_ACCEPT: Final = b"application/json, text/event-stream"
_LOOPBACK_ORIGINS: Final = ("localhost", "127.0.0.1", "[::1]")
_CHALLENGE: Final = [(b"www-authenticate", b'Bearer error="invalid_token"')]
_ALLOW_POST: Final = [(b"allow", b"POST")]
_OF_SESSIONS: Final = frozenset({"GET", "DELETE"})


class RejectedError(Exception):
    """The request is rejected with this response; `reason` is the label in the metrics."""

    def __init__(
        self, reason: Rejection, status: int, message: str, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status
        self.headers = headers


def authenticate(state: RelayState, scope: Scope, headers: Headers) -> tuple[WorkspaceView, Principal]:
    """The workspace of a request and the token that it came with.

    Raises:
        RejectedError: wrong path, method, origin, token, workspace or media type.
    """
    path: str = scope["path"]
    if b"origin" in headers:
        _check_origin(state, headers[b"origin"].decode("latin-1"))
    view = state.registry.paths.get(path)
    if view is None and not path.startswith(PATHS):
        raise RejectedError("not_found", 404, "no such path: a workspace's URL is /ws/<workspace>")
    posts = scope["method"] == "POST"
    if not posts and not _is_of_session(state, scope["method"], headers):
        raise RejectedError("method_not_allowed", 405, "send MCP messages by POST", _ALLOW_POST)
    principal = _principal(state.registry, headers.get(b"authorization", b""))
    if view is None:
        raise RejectedError("unknown_workspace", 404, "no such workspace: see the configuration's 'workspaces'")
    if principal.workspace_id != view.slug:
        raise RejectedError("forbidden", 403, f"this token is not for workspace {view.slug!r}")
    if posts:
        media_type = headers.get(b"content-type", b"")
        if media_type != _JSON and media_type.partition(b";")[0].strip().lower() != _JSON:
            raise RejectedError("bad_request", 415, "the body must be JSON: send Content-Type: application/json")
    accept = headers.get(b"accept")
    if accept != _USUAL_ACCEPT:
        _check_accept(scope["method"], accept)
    return view, principal


def _is_of_session(state: RelayState, method: str, headers: Headers) -> bool:
    """Whether a GET or DELETE belongs to a legacy session."""
    version = headers.get(b"mcp-protocol-version")
    legacy = era_of(version.decode("latin-1") if version is not None else None) is Era.LEGACY
    return state.sessions and method in _OF_SESSIONS and HEADER in headers and legacy


def _check_origin(state: RelayState, origin: str) -> None:
    """Against DNS rebinding: a page in a browser has to be listed, or served by this machine."""
    host = origin.partition("://")[2]
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if origin not in state.allowed_origins and name not in _LOOPBACK_ORIGINS:
        raise RejectedError("forbidden_origin", 403, f"requests.allowed_origins does not have {origin!r}")


def _principal(registry: WorkspaceRegistry, authorization: bytes) -> Principal:
    if authorization[:7].lower() != _BEARER:
        raise RejectedError("unauthorized", 401, "no token: send Authorization: Bearer mwt_…", _CHALLENGE)
    principal = registry.principal(authorization[7:].strip())
    if principal is None:
        raise RejectedError("unauthorized", 401, "this token is not known here, or was revoked", _CHALLENGE)
    if principal.expires_at is not None and time.time() >= principal.expires_at:
        raise RejectedError("unauthorized", 401, "this token has expired: ask for a new one", _CHALLENGE)
    return principal


def _check_accept(method: str, accept: bytes | None) -> None:
    """Responses are JSON, and a session's own stream is an event stream."""
    header = (accept or b"").decode("latin-1")
    media_types = {"POST": "application/json", "GET": "text/event-stream"}
    if method in media_types and not accepts(header, media_types[method]):
        message = "send Accept: application/json, text/event-stream: there is no answer in another type"
        raise RejectedError("not_acceptable", 406, message)

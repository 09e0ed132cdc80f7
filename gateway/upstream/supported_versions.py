"""Which revisions a server names in its answer to `server/discover`.

Source: specification 2026-07-28, basic/versioning and server/discover.
"""

from typing import Final

import msgspec
from mcp_types.jsonrpc import UNSUPPORTED_PROTOCOL_VERSION
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from msgspec import UNSET, Raw, Struct

from gateway.calls import ErrorType
from gateway.mcp import jsonrpc, outbound
from gateway.upstream.base import UpstreamError, UpstreamResponse
from gateway.upstream.http_response import code_of

_KNOWN: Final = frozenset({*MODERN_PROTOCOL_VERSIONS, *HANDSHAKE_PROTOCOL_VERSIONS})
_SHOWN_VERSIONS: Final = 8


class _Supported(Struct, frozen=True):
    supported: list[str] = []


class _Unsupported(Struct, frozen=True):
    data: _Supported = _Supported()


_decode_unsupported: Final = msgspec.json.Decoder(_Unsupported).decode


def common_versions(reply: UpstreamResponse) -> list[str]:
    """The revisions that the answer names; none if it is no discovery, which a legacy server's is not.

    Raises:
        UpstreamError: it names some, and none that the gateway speaks.
    """
    if reply.error is not UNSET:
        versions = _supported(reply.error) if code_of(reply.error) == UNSUPPORTED_PROTOCOL_VERSION else []
    else:
        versions = outbound.supported_versions(reply.result) if reply.result is not UNSET else []
    if versions and not _KNOWN.intersection(versions):
        theirs = ", ".join(version[:16] for version in versions[:_SHOWN_VERSIONS])
        raise UpstreamError(
            ErrorType.UPSTREAM_PROTOCOL_ERROR,
            f"speaks MCP {theirs}, the gateway {', '.join(sorted(_KNOWN))}: no revision is common to both",
        )
    return versions


def _supported(error: Raw) -> list[str]:
    try:
        return _decode_unsupported(error).data.supported
    except jsonrpc.NO_JSON:
        return []

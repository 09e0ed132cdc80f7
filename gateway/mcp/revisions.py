"""Protocol revisions and the two eras: `modern` has the version on each request, `legacy` begins with `initialize`.

Source: modelcontextprotocol, specification 2026-07-28, basic/versioning and basic/transports/streamable-http.
"""

from enum import StrEnum
from typing import Final

from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION

ASSUMED_LEGACY: Final = "2025-03-26"
"""What a request without `MCP-Protocol-Version` and without a session speaks (2025-11-25, transports)."""


class Era(StrEnum):
    """How a peer says which revision it speaks."""

    MODERN = "modern"
    LEGACY = "legacy"


def era_of(version_header: str | None) -> Era:
    """The era of an HTTP request by its `MCP-Protocol-Version`: anything that no handshake ever offered is modern."""
    return Era.LEGACY if version_header is None or version_header in HANDSHAKE_PROTOCOL_VERSIONS else Era.MODERN


def negotiate(requested: str) -> str:
    """The answer to `initialize`: the requested legacy revision if it is one, else the latest."""
    return requested if requested in HANDSHAKE_PROTOCOL_VERSIONS else LATEST_HANDSHAKE_VERSION


__all__ = ["ASSUMED_LEGACY", "LATEST_HANDSHAKE_VERSION", "LATEST_MODERN_VERSION", "Era", "era_of", "negotiate"]

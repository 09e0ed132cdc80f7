"""What one configuration means to the relay, as one frozen value.

A reload replaces the value as a whole. A request reads it once, when it arrives, and keeps to it until its end, so no
request sees half of two configurations.
"""

from dataclasses import dataclass

from gateway.relay.quota import Quota
from gateway.relay.redaction import Redactor
from gateway.relay.registry import WorkspaceRegistry


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayState:
    """The configuration that requests arriving now are served by."""

    registry: WorkspaceRegistry
    redactor: Redactor
    quota: Quota | None
    """None while plans are not enforced."""
    allowed_origins: tuple[str, ...]
    sessions: bool
    """Whether legacy clients get sessions. Without, an `Mcp-Session-Id` is ignored."""
    max_bytes: int
    """Of a request's body."""

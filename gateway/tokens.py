"""Gateway tokens: `mwt_` and 43 random characters. Only the SHA-256 is stored; the secret is shown once."""

import hashlib
import re
import secrets
from typing import Any, Final, NamedTuple

from gateway.config import MAX_SLUG

PREFIX: Final = "mwt_"


class NewToken(NamedTuple):
    """The secret is for its owner, the digest for the configuration."""

    secret: str
    sha256: str


def create() -> NewToken:
    """A new token with 256 random bits."""
    secret = PREFIX + secrets.token_urlsafe(32)
    return NewToken(secret, hashlib.sha256(secret.encode()).hexdigest())


def identifier(name: str) -> str:
    """A token id made of a name: "Alice Cursor" becomes `alice-cursor`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:MAX_SLUG].rstrip("-") or "token"


def client_configuration(workspace: str, url: str, secret: str) -> dict[str, Any]:
    """The `mcpServers` block of MCP clients."""
    return {"mcpServers": {workspace: {"type": "http", "url": url, "headers": {"Authorization": f"Bearer {secret}"}}}}

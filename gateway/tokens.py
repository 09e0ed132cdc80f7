"""Gateway tokens: `mwt_` and 43 random characters. Only the SHA-256 is kept; the secret is shown once."""

import hashlib
import re
import secrets
from typing import Any, Final, NamedTuple

PREFIX: Final = "mwt_"
MAX_ID: Final = 64
"""Characters of a token's id, as of any slug of the configuration."""


class NewToken(NamedTuple):
    """A token as it is created: the secret for its owner, the digest for the configuration."""

    secret: str
    sha256: str


def create() -> NewToken:
    """A new token with 256 random bits."""
    secret = PREFIX + secrets.token_urlsafe(32)
    return NewToken(secret, hashlib.sha256(secret.encode()).hexdigest())


def identifier(name: str) -> str:
    """A token id made of its name: "Alice Cursor" becomes `alice-cursor`; as long as an id may be at most."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:MAX_ID].rstrip("-") or "token"


def client_configuration(workspace: str, url: str, secret: str) -> dict[str, Any]:
    """The `mcpServers` block that MCP clients take as it is."""
    return {"mcpServers": {workspace: {"type": "http", "url": url, "headers": {"Authorization": f"Bearer {secret}"}}}}

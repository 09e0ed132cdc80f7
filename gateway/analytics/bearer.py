"""Issues bearer tokens of the API (JSON Web Tokens, RFC 7519). Every command imports this module: it stays light."""

from collections.abc import Sequence
from typing import Any, Final

import jwt

from gateway import config
from gateway.errors import CallscopeError

ALL_WORKSPACES: Final = "*"
_HMAC_BLOCK_BYTES: Final = 64


def hmac_key(secret: str) -> bytes:
    """The secret, padded as HMAC pads it (RFC 2104): no signature changes, and PyJWT does not warn on each request."""
    return secret.encode().ljust(_HMAC_BLOCK_BYTES, b"\0")


def issue(settings: config.Jwt, workspaces: Sequence[str], ttl_s: float, now: float, token: str | None = None) -> str:
    """A token for `workspaces`, valid from `now` (seconds since the epoch) for `ttl_s`; `token` narrows it to a member.

    Raises:
        CallscopeError: the configuration verifies by a key set, whose private key is not here.
    """
    if settings.secret is None:
        raise CallscopeError("only the owner of the keys at api.jwt.jwks_url can issue tokens: set api.jwt.secret")
    claims: dict[str, Any] = {"workspaces": list(workspaces), "iat": int(now), "exp": int(now + ttl_s)}
    optional = {"token": token, "iss": settings.issuer, "aud": settings.audience}
    claims |= {claim: value for claim, value in optional.items() if value is not None}
    return jwt.encode(claims, hmac_key(settings.secret), algorithm="HS256")

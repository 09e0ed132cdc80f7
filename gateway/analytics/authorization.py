"""Who may read which workspace of the API: its bearer tokens (JSON Web Tokens, RFC 7519) are verified.

A token is verified by a shared secret (HS256) or by a key set (RS256, ES256). Claims: `workspaces`, a list of slugs or
`["*"]`; optionally `token`, the id of the only member whose calls the bearer may see; `exp` and `nbf` count if they are
there; `iss` and `aud` if the configuration names them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt

from gateway import config
from gateway.analytics.bearer import ALL_WORKSPACES, hmac_key
from gateway.analytics.http_errors import ApiError, unauthorized, unavailable
from gateway.analytics.jwks import ALGORITHMS, KeySet, KeySetUnavailableError
from gateway.ledger.rows import is_storable

LEEWAY_S: Final = 10
"""The clocks of who signs and who verifies may differ by this."""
_MALFORMED: Final = (ValueError, TypeError, OverflowError, RecursionError)
"""What PyJWT does not translate: claims of wrong types, infinite times, a header of nested brackets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a verified bearer may see: one workspace, and of that everything or one member's calls."""

    workspace_id: str
    workspace: config.Workspace
    plan: config.Plan
    member: str | None
    expires_s: int | None
    """Seconds since the Unix epoch at which the token expires, the leeway included; None if never."""


class Authorizer:
    """Decides who may read a workspace; a changed configuration holds at once. Key sets are cached by address."""

    def __init__(self, current: Callable[[], config.Config], *, key_set: Callable[[str], KeySet] = KeySet) -> None:
        self._config = current
        self._new_key_set = key_set
        self._key_sets: dict[str, KeySet] = {}

    async def authorize(self, authorization: str | None, workspace_id: str) -> Access:
        """Check the `Authorization` header's value.

        Raises:
            ApiError: 401, 403, 404, or 503 if there is no section `api`, or its key set cannot be fetched.
        """
        current = self._config()
        claims = await self._verify(current, authorization)
        workspaces, member = _names(claims)
        may_see_all = ALL_WORKSPACES in workspaces
        workspace = current.workspaces.get(workspace_id)
        if workspace is None and may_see_all:
            raise ApiError(404, f"there is no workspace {workspace_id!r}")
        if workspace is None or not (may_see_all or workspace_id in workspaces):
            raise ApiError(403, f"this token does not name the workspace {workspace_id!r}")
        return Access(
            workspace_id=workspace_id,
            workspace=workspace,
            plan=current.plan_of(workspace),
            member=member,
            expires_s=int(claims["exp"]) + LEEWAY_S if "exp" in claims else None,
        )

    async def _verify(self, current: config.Config, authorization: str | None) -> dict[str, Any]:
        if current.api is None:
            raise unavailable(
                "the configuration has no section 'api': the analytics API has no key to verify tokens with until "
                "api.jwt.secret or api.jwt.jwks_url is set",
                retry_after_s=60,
            )
        scheme, _, bearer = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not bearer.strip():
            raise unauthorized("a token is missing: send 'Authorization: Bearer <JWT>'")
        try:
            return await self._decode(current.api.jwt, bearer.strip())
        except KeySetUnavailableError as error:
            raise unavailable("the key set that verifies tokens cannot be fetched: see api.jwt.jwks_url") from error
        except (jwt.PyJWTError, *_MALFORMED) as error:
            raise unauthorized(f"the token is not valid: {error}") from error

    async def _decode(self, settings: config.Jwt, bearer: str) -> dict[str, Any]:
        key: Any
        algorithms: Sequence[str]
        if settings.jwks_url is None:
            key, algorithms = hmac_key(settings.secret or ""), ["HS256"]
        else:
            key, algorithms = await self._public_key(settings.jwks_url, bearer), ALGORITHMS
        required = [claim for claim, value in (("iss", settings.issuer), ("aud", settings.audience)) if value]
        return jwt.decode(
            bearer,
            key,
            algorithms=algorithms,
            issuer=settings.issuer,
            audience=settings.audience,
            leeway=LEEWAY_S,
            options={"verify_aud": settings.audience is not None, "require": required},
        )

    async def _public_key(self, jwks_url: str, bearer: str) -> jwt.PyJWK:
        header = jwt.get_unverified_header(bearer)
        if header.get("alg") not in ALGORITHMS:
            raise jwt.InvalidAlgorithmError(f"it must be signed by {' or '.join(ALGORITHMS)}")
        if "kid" not in header:
            raise jwt.InvalidTokenError('its header has no "kid", which names the key')
        if jwks_url not in self._key_sets:
            self._key_sets[jwks_url] = self._new_key_set(jwks_url)
        return await self._key_sets[jwks_url].key(header["kid"])


def _names(claims: Mapping[str, Any]) -> tuple[list[str], str | None]:
    workspaces, member = claims.get("workspaces", []), claims.get("token")
    if not isinstance(workspaces, list) or not all(map(_is_name, workspaces)):
        raise unauthorized('the token is not valid: its claim "workspaces" must be a list of slugs, or ["*"]')
    if member is not None and not _is_name(member):
        raise unauthorized('the token is not valid: its claim "token" must be the id of a member')
    return workspaces, member


def _is_name(claim: object) -> bool:
    return isinstance(claim, str) and is_storable(claim)

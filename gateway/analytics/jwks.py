"""A JSON Web Key Set (RFC 7517) that is fetched from an address, and cached.

The laws: a key with an unknown name is fetched at once, but the address gets one request in `cooldown_s` at most,
whatever names strangers make up. A request whose key is known never waits for a fetch by another one. A key that was
removed from the set verifies nothing after `lifetime_s`, and usually after `refresh_s`.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx
import jwt
import msgspec

ALGORITHMS: Final = ("RS256", "ES256")

logger = logging.getLogger(__name__)


class KeySetUnavailableError(jwt.PyJWTError):
    """The key set cannot be fetched, and what is cached does not say whether the token is good."""

    def __init__(self) -> None:
        super().__init__("the key set cannot be fetched")


class KeySet:
    """The keys at one address, for one event loop. All times are in seconds.

    `refresh_s` is the age at which a set is fetched again; if that fails, its keys hold until `lifetime_s`.
    `cooldown_s` passes between the end of one fetch and the next one; a fetch takes `timeout_s` at most.
    """

    def __init__(
        self,
        url: str,
        *,
        refresh_s: float = 60.0,
        lifetime_s: float = 300.0,
        cooldown_s: float = 5.0,
        timeout_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # Not PyJWT's PyJWKClient: it blocks a thread, without a limit for a server that answers byte by byte, and its
        # cache holds a lock during the fetch, so that requests with a known key would wait.
        self._url = url
        self._tls = httpx.create_ssl_context()  # made once, because it takes 40 ms of CPU
        self._refresh_s = refresh_s
        self._lifetime_s = lifetime_s
        self._cooldown_s = cooldown_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._fetching = asyncio.Lock()
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched = float("-inf")
        self._tried = float("-inf")
        self._failed = False

    async def key(self, name: str) -> jwt.PyJWK:
        """The key of that name.

        Raises:
            KeySetUnavailableError: the address does not answer, so nobody can say.
            jwt.PyJWKClientError: there is no such key.
        """
        if not self._knows(name):
            async with self._fetching:  # waits for a fetch that is under way
                if not self._knows(name):
                    await self._fetch()
        elif self._age() >= self._refresh_s and not self._fetching.locked():
            async with self._fetching:
                await self._fetch()
        if self._knows(name):
            return self._keys[name]
        if self._age() >= self._lifetime_s or self._failed:
            raise KeySetUnavailableError
        raise jwt.PyJWKClientError("it names a key that is not in the key set")

    def _age(self) -> float:
        return self._clock() - self._fetched

    def _knows(self, name: str) -> bool:
        return name in self._keys and self._age() < self._lifetime_s

    async def _fetch(self) -> None:
        if self._clock() - self._tried < self._cooldown_s:
            return
        self._failed = True
        try:
            limit = self._timeout_s
            async with asyncio.timeout(limit), httpx.AsyncClient(verify=self._tls, timeout=limit) as client:
                response = await client.get(self._url, headers={"Accept": "application/jwk-set+json, application/json"})
            self._keys, self._fetched, self._failed = _signing_keys(response), self._clock(), False
        except (httpx.HTTPError, TimeoutError, msgspec.MsgspecError, ValueError) as error:
            logger.warning("api.jwt.jwks_url: the key set cannot be fetched: %s", str(error) or type(error).__name__)
        except httpx.InvalidURL as error:  # its message quotes the address, which may have a secret in it
            logger.warning("api.jwt.jwks_url: the key set cannot be fetched: %s", type(error).__name__)
        finally:
            self._tried = self._clock()


def _signing_keys(response: httpx.Response) -> dict[str, jwt.PyJWK]:
    """The keys that a token can name and that verify signatures; others may be in the set, and are skipped.

    Raises:
        ValueError: the response is not a key set.
        msgspec.MsgspecError: it is not a JSON object.
    """
    if response.status_code != httpx.codes.OK:
        raise ValueError(f"the answer's status is {response.status_code}")
    described = msgspec.json.decode(response.content, type=dict[str, Any]).get("keys")
    if not isinstance(described, list):
        raise ValueError('the answer has no list "keys"')  # noqa: TRY004 - a wrong answer, not a wrong argument
    keys: dict[str, jwt.PyJWK] = {}
    for jwk in described:
        with contextlib.suppress(jwt.PyJWTError, AttributeError, KeyError, TypeError, ValueError):
            key = jwt.PyJWK(jwk)
            usable = key.public_key_use in (None, "sig") and key.algorithm_name in ALGORITHMS
            if usable and isinstance(key.key_id, str):
                keys.setdefault(key.key_id, key)
    return keys

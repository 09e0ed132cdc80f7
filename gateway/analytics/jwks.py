"""A key set (RFC 7517) that is fetched from an address, and kept for a while.

The laws: a key whose name is new is looked for at once, but the address is asked once in `PAUSE_S` at most, whatever
names strangers make up. Whose key is known does not wait for the address, which may be slow or away. A key that was
taken out of the set verifies nothing after `LIFETIME_S`, and mostly after `REFRESH_S`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx
import jwt
import msgspec

ALGORITHMS: Final = ("RS256", "ES256")
REFRESH_S: Final = 60.0
"""A set that is older is fetched again when somebody needs it; without success it stays what it is."""
LIFETIME_S: Final = 300.0
PAUSE_S: Final = 5.0
"""Between the end of one fetch and the next."""
TIMEOUT_S: Final = 5.0
"""Of a whole fetch."""

_NEVER: Final = float("-inf")
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode

logger = logging.getLogger(__name__)


class KeySetUnavailableError(jwt.PyJWTError):
    """The key set cannot be fetched, and what is known of it does not say whether the token is good."""

    def __init__(self) -> None:
        super().__init__("the key set cannot be fetched")


class KeySet:
    """The keys at one address. Of one event loop; `clock` gives seconds that only go on."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._tls = httpx.create_ssl_context()  # dear to make
        self._clock = clock
        self._one = asyncio.Lock()
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched = _NEVER
        self._tried = _NEVER
        self._failed = False

    async def key(self, name: str) -> jwt.PyJWK:
        """The key of that name.

        Raises:
            KeySetUnavailableError: there is no answer to that, as the address does not give one.
            jwt.PyJWKClientError: there is no such key.
        """
        if not self._knows(name):
            async with self._one:  # waits for a fetch that is under way
                if not self._knows(name) and self._may_fetch():
                    await self._fetch()
        elif self._age() >= REFRESH_S and self._may_fetch() and not self._one.locked():
            async with self._one:
                await self._fetch()
        if self._knows(name):
            return self._keys[name]
        if self._age() >= LIFETIME_S or self._failed:
            raise KeySetUnavailableError
        raise jwt.PyJWKClientError("it names a key that is not in the key set")

    def _age(self) -> float:
        return self._clock() - self._fetched

    def _knows(self, name: str) -> bool:
        return name in self._keys and self._age() < LIFETIME_S

    def _may_fetch(self) -> bool:
        return self._clock() - self._tried >= PAUSE_S

    async def _fetch(self) -> None:
        self._failed = True
        try:
            async with asyncio.timeout(TIMEOUT_S), httpx.AsyncClient(verify=self._tls, timeout=TIMEOUT_S) as client:
                answer = await client.get(self._url, headers={"Accept": "application/jwk-set+json, application/json"})
            keys = _verifying(answer)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, msgspec.MsgspecError, ValueError) as error:
            # without the address, which may have a secret in it
            logger.warning("api.jwt.jwks_url: no key set can be fetched: %s", str(error) or type(error).__name__)
        else:
            self._keys, self._fetched, self._failed = keys, self._clock(), False
        finally:
            self._tried = self._clock()


def _verifying(answer: httpx.Response) -> dict[str, jwt.PyJWK]:
    """The keys that tokens can name and that verify what they sign; others may be in the set, and are passed over.

    Raises:
        ValueError: the answer is no key set.
        msgspec.MsgspecError: it is no JSON object.
    """
    if answer.status_code != httpx.codes.OK:
        raise ValueError(f"the answer's status is {answer.status_code}")
    described = _decode(answer.content).get("keys")
    if not isinstance(described, list):
        raise ValueError('the answer has no list "keys"')  # noqa: TRY004 - of what the address says, not of a type here
    keys: dict[str, jwt.PyJWK] = {}
    for jwk in described:
        if not (isinstance(jwk, dict) and isinstance(jwk.get("kid"), str) and jwk.get("use") in (None, "sig")):
            continue
        try:
            key = jwt.PyJWK(jwk)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
        if key.algorithm_name in ALGORITHMS:
            keys.setdefault(jwk["kid"], key)
    return keys

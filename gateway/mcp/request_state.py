"""A `requestState` that the gateway gives to a client and takes back: readable by it, but not to be changed or lent.

HMAC-SHA-256 over the principal, the method, a digest of the params and an expiry. Single use is not in it: what may
happen once only is for the holder of the parked call to see to.

Source: specification 2026-07-28, basic/patterns/mrtr, "Server Requirements", 4 and 5; RFC 2104.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw, Struct

from gateway.mcp.jsonrpc import DECODE_ERRORS, InvalidParamsError

MIN_KEY_BYTES: Final = 32
MAX_STATE_CHARACTERS: Final = 65_536
_PREFIX: Final = "cs1."
_DOMAIN: Final = b"callscope requestState 1\0"
"""What the key signs here is valid nowhere else that it may sign something."""
RETRY_MEMBERS: Final = frozenset({"_meta", "inputResponses", "requestState"})
"""What differs between a request and its retry."""


class InvalidRequestStateError(InvalidParamsError):
    """A `requestState` that is not, or not any more, one of this request's: -32602."""


class Binding(NamedTuple):
    """What a state is good for: one principal, one request."""

    principal: str
    """Who is authenticated, such as workspace and token id; not a secret, for the client can read it."""
    method: str
    digest: str
    """Of the params, without those that differ in a retry."""


class _Sealed(Struct, frozen=True, array_like=True):
    principal: str
    method: str
    digest: str
    expires_at: float
    content: Raw


_decode: Final = msgspec.json.Decoder().decode
_decode_sealed: Final = msgspec.json.Decoder(_Sealed).decode


def bind(principal: str, method: str, params: Mapping[str, Raw]) -> Binding:
    """What a request's state is bound to; a retry's params may be written differently, but must say the same.

    Raises:
        InvalidRequestStateError: the params cannot be decoded.
    """
    try:
        members = {name: _decode(value) for name, value in params.items() if name not in RETRY_MEMBERS}
    except DECODE_ERRORS as error:
        raise InvalidRequestStateError(f"the request's params cannot be decoded: {error}") from error
    written = msgspec.json.encode(members, order="deterministic")
    return Binding(principal, method, hashlib.sha256(written).hexdigest())


def seal(keys: Sequence[bytes], binding: Binding, content: Any, expires_at: float) -> str:
    """A `requestState` with any content that is JSON; the first key signs, `expires_at` is in seconds of the epoch.

    Raises:
        ValueError: a key is shorter than 32 bytes, or there is none.
    """
    _check(keys)
    payload = urlsafe_b64encode(msgspec.json.encode((*binding, expires_at, content)))
    return f"{_PREFIX}{payload.decode()}.{_mac(keys[0], payload)}"


def unseal(keys: Sequence[bytes], binding: Binding, state: str, now: float) -> Raw:
    """The content of a state that came back with the request of `binding`; every key is tried.

    Raises:
        InvalidRequestStateError: it was changed, has expired, or belongs to another principal or request.
        ValueError: a key is shorter than 32 bytes, or there is none.
    """
    _check(keys)
    sealed = _open(keys, state)
    if sealed.principal != binding.principal:
        raise InvalidRequestStateError("the requestState belongs to another principal")
    if (sealed.method, sealed.digest) != (binding.method, binding.digest):
        raise InvalidRequestStateError("the requestState belongs to another request: retry with the same params")
    if now >= sealed.expires_at:
        raise InvalidRequestStateError("the requestState has expired: send the request again, without it")
    return sealed.content


def is_sealed(state: str) -> bool:
    """Whether a state looks like one of the gateway's, and not like one of a server's own."""
    return state.startswith(_PREFIX)


def _open(keys: Sequence[bytes], state: str) -> _Sealed:
    payload, separator, mac = state.removeprefix(_PREFIX).partition(".")
    if len(state) > MAX_STATE_CHARACTERS or not is_sealed(state) or not separator or not state.isascii():
        raise InvalidRequestStateError("the requestState was not issued by this gateway")
    signed = payload.encode()
    if not any(hmac.compare_digest(mac, _mac(key, signed)) for key in keys):
        raise InvalidRequestStateError("the requestState was changed, or signed with a key that is not used any more")
    return _decode_sealed(urlsafe_b64decode(signed))


def _mac(key: bytes, payload: bytes) -> str:
    return urlsafe_b64encode(hmac.digest(key, _DOMAIN + payload, "sha256")).decode()


def _check(keys: Sequence[bytes]) -> None:
    if not keys or min(len(key) for key in keys) < MIN_KEY_BYTES:
        raise ValueError(f"a key for requestState has at least {MIN_KEY_BYTES} bytes")

"""JSON-RPC batches: arrays of messages, which revision 2025-03-26 has and no other.

Source: specification 2025-03-26, basic/transports "Sending Messages to the Server" and basic/lifecycle
"Initialization"; JSON-RPC 2.0, section 6; 2025-06-18, changelog (removed).
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.mcp import jsonrpc
from gateway.mcp.inbound import Rejection
from gateway.mcp.revisions import ASSUMED_LEGACY

REVISION: Final = "2025-03-26"
MAX_MESSAGES: Final = 256
"""A batch may ask for more work than its bytes: the number of its messages is bounded as well."""

_WHITESPACE: Final = b" \t\r\n"


class _Head(Struct):
    method: Raw | UnsetType = UNSET


_decode_array: Final = msgspec.json.Decoder(list[Raw]).decode
_NO_METHOD: Final = _Head()
_decode_head: Final = msgspec.json.Decoder(_Head).decode


def is_batch(body: bytes) -> bool:
    """Whether a body is an array."""
    return body.startswith(b"[") or body.lstrip(_WHITESPACE).startswith(b"[")


def split(body: bytes, version: str | None) -> list[bytes] | Rejection:
    """The messages of a batch, in their order, each as it came, or why the whole of it is refused.

    A member that is no message is one of them: it is answered by an error of its own (JSON-RPC 2.0, section 6).
    `version` is the revision of the request: `MCP-Protocol-Version`, or what its session negotiated.
    """
    if (version or ASSUMED_LEGACY) != REVISION:
        return _refused("the body is a batch: send one message a request")
    try:
        body.decode()
        messages = [bytes(message) for message in _decode_array(body)]
    except msgspec.ValidationError as error:
        return _refused(f"the body is no batch: {error}")
    except jsonrpc.DECODE_ERRORS as error:
        return Rejection(400, None, jsonrpc.PARSE_ERROR, f"the body is no JSON: {error}")
    if not messages:
        return _refused("the batch is empty")
    if len(messages) > MAX_MESSAGES:
        return _refused(f"the batch has {len(messages)} messages: {MAX_MESSAGES} are the most")
    if any(_is_initialize(message) for message in messages):
        return _refused("'initialize' must not be in a batch: send it alone, first")
    return messages


def join(answers: Iterable[bytes | None]) -> bytes | None:
    """The body for the answers to a batch's messages, None for what gets none.

    None if there is nothing to answer: then the reply is 202 without a body.
    """
    bodies = [answer for answer in answers if answer is not None]
    return b"[%b]" % b",".join(bodies) if bodies else None


def _is_initialize(message: bytes) -> bool:
    method = jsonrpc.decode_or(_decode_head, Raw(message), _NO_METHOD).method
    return method is not UNSET and jsonrpc.decode_or(jsonrpc.decode_string, method, "") == "initialize"


def _refused(message: str) -> Rejection:
    return Rejection(400, None, jsonrpc.INVALID_REQUEST, message)

"""What a `completion/complete` is about: a prompt, under the gateway's name, or a resource template, under its own.

Source: specification 2026-07-28, server/utilities/completion.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Raw, Struct

from gateway.mcp import jsonrpc
from gateway.mcp.jsonrpc import DECODE_ERRORS, InvalidParamsError, Params


class PromptRef(Struct, frozen=True, tag_field="type", tag="ref/prompt"):
    """A prompt, by the name that the gateway lists it under."""

    name: str


class ResourceRef(Struct, frozen=True, tag_field="type", tag="ref/resource"):
    """A resource template, or a resource, by its URI."""

    uri: str


_decode: Final[Callable[[Raw], PromptRef | ResourceRef]] = msgspec.json.Decoder(PromptRef | ResourceRef).decode


def read(params: Params) -> PromptRef | ResourceRef:
    """What the request is about.

    Raises:
        InvalidParamsError: it does not say, or something that is neither.
    """
    try:
        return _decode(params.get("ref", Raw(b"null")))
    except DECODE_ERRORS as error:
        raise InvalidParamsError(f"'params.ref' names neither a prompt nor a resource: {error}") from error


def renamed(params: Params, prompt: str) -> Params:
    """The same request with its prompt's own name, for the server that has it; the rest stays as it is."""
    ref = jsonrpc.decode_params(params["ref"])
    return {**params, "ref": jsonrpc.raw({**ref, "name": prompt})}

"""The tools of one server as the gateway lists them: renamed, otherwise byte for byte. And how any list is read."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.calls import ErrorType
from gateway.mcp import jsonrpc, tool_names
from gateway.mcp.param_headers import InvalidParamHeaderError, ParamHeaders, compile_schema
from gateway.mcp.revisions import Era
from gateway.upstream.base import UpstreamError, UpstreamRequest, UpstreamResponse

logger = logging.getLogger(__name__)

LISTS: Final = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
"""The member of the result that is the list, by method."""
LIST_TIMEOUT_S: Final = 10.0
_MAX_PAGES: Final = 100
_REFRESH_AFTER_S: Final = 5.0
"""A name that is not in the catalog causes a new listing, but not more often than this."""
_SHOWN_MESSAGE: Final = 500
_SHOWN_NAME: Final = 128

Send = Callable[[UpstreamRequest, asyncio.Timeout], Awaitable[UpstreamResponse]]
"""Sends a request to the server, within a time limit."""


class ListedTool(NamedTuple):
    """One tool, under the gateway's name."""

    listing: Raw
    era: Era | None
    """In which the server listed it."""
    repeatable: bool
    """Whether a call may be sent twice."""
    param_headers: ParamHeaders | None = None
    """The arguments that are sent as headers too. Nearly every tool has none."""


class _Annotations(Struct):
    readOnlyHint: bool | None = None  # noqa: N815 - the member's name in MCP
    idempotentHint: bool | None = None  # noqa: N815 - the member's name in MCP


class _ToolHead(Struct):
    name: str
    inputSchema: Raw = jsonrpc.EMPTY_OBJECT  # noqa: N815 - the member's name in MCP
    annotations: Raw | UnsetType = UNSET


class _Cursor(Struct):
    nextCursor: str | None = None  # noqa: N815 - the member's name in MCP


_decode_head: Final = msgspec.json.Decoder(_ToolHead).decode
_decode_annotations: Final = msgspec.json.Decoder(_Annotations | None).decode
_decode_cursor: Final = msgspec.json.Decoder(_Cursor).decode
_decode_items: Final = msgspec.json.Decoder(list[Raw]).decode


async def read_pages(
    send: Send, method: str, limit: asyncio.Timeout, token_id: str | None = None
) -> AsyncIterator[tuple[list[Raw], Era | None]]:
    """The items of a list, page by page, and the era in which the server sent the page.

    Raises:
        MethodNotFoundError: the server has no such list.
        UpstreamError: it did not answer with a list.
    """
    params: jsonrpc.Params = {}
    for _ in range(_MAX_PAGES):
        response = await send(UpstreamRequest(method, params, repeatable=True, token_id=token_id), limit)
        items, cursor = _read_page(method, response)
        yield items, response.era
        if cursor is None:
            return
        params = {"cursor": jsonrpc.raw(cursor)}
    raise UpstreamError(ErrorType.UPSTREAM_PROTOCOL_ERROR, f"answered {method} with more than {_MAX_PAGES} pages")


class MethodNotFoundError(UpstreamError):
    """The server does not know the method."""


def _read_page(method: str, response: UpstreamResponse) -> tuple[list[Raw], str | None]:
    if response.error is not UNSET:
        try:
            error = jsonrpc.decode_error(response.error)
        except jsonrpc.DECODE_ERRORS as invalid:
            message = f"rejected {method} with an invalid JSON-RPC error"
            raise UpstreamError(ErrorType.JSONRPC_ERROR, message) from invalid
        kind = MethodNotFoundError if error.code == jsonrpc.METHOD_NOT_FOUND else UpstreamError
        raise kind(ErrorType.JSONRPC_ERROR, f"rejected {method}: {error.message[:_SHOWN_MESSAGE]} ({error.code})")
    result = response.result if response.result is not UNSET else jsonrpc.EMPTY_OBJECT
    try:
        members: jsonrpc.Params = jsonrpc.decode_params(result)
        return _decode_items(members[LISTS[method]]), _decode_cursor(result).nextCursor
    except (*jsonrpc.DECODE_ERRORS, KeyError) as error:
        raise UpstreamError(
            ErrorType.UPSTREAM_PROTOCOL_ERROR, f"answered {method} without a valid {LISTS[method]!r}: {error}"
        ) from error


class Catalog:
    """The newest listing of one server's tools. Only one listing runs at a time, for all who wait for it."""

    def __init__(self, slug: str, send: Send) -> None:
        self._slug = slug
        self._send = send
        self._listing: asyncio.Task[dict[str, ListedTool]] | None = None
        self._listed_at = float("-inf")
        self.tools: dict[str, ListedTool] = {}
        """By the server's own name, as of the last listing that succeeded."""
        self.known = False
        """Whether one succeeded."""
        self.bytes = 0
        """What the listing costs a model's context, in bytes of JSON."""
        self._left_out: dict[str, str] = {}
        """The reason by the server's own name: each is logged once."""

    async def list(self) -> dict[str, ListedTool]:
        """List the server's tools, all pages.

        Raises:
            UpstreamError: it did not answer with a list; `tools` stays as it was.
        """
        if self._listing is None:
            self._listed_at = time.monotonic()
            self._listing = asyncio.create_task(self._list())
            self._listing.add_done_callback(self._take)
        return await asyncio.shield(self._listing)

    def invalidate(self) -> None:
        """The server's tools have changed: the next unknown name causes a listing at once."""
        self._listed_at = float("-inf")

    async def find(self, name: str) -> ListedTool | None:
        """A tool by the server's own name. An unknown name causes a listing.

        Raises:
            UpstreamError: the server did not answer, and its tools were never known.
        """
        found = self.tools.get(name)
        if found is not None or (self.known and time.monotonic() - self._listed_at < _REFRESH_AFTER_S):
            return found
        try:
            return (await self.list()).get(name)
        except UpstreamError:
            if self.known:
                return None
            raise

    def _take(self, task: asyncio.Task[dict[str, ListedTool]]) -> None:
        self._listing = None
        if not task.cancelled() and task.exception() is None:
            self.tools, self.known = task.result(), True
            self.bytes = sum(len(bytes(tool.listing)) for tool in self.tools.values())

    async def _list(self) -> dict[str, ListedTool]:
        tools: dict[str, ListedTool] = {}
        left_out: dict[str, str] = {}
        try:
            async with asyncio.timeout(LIST_TIMEOUT_S) as limit:
                async for items, era in read_pages(self._send, "tools/list", limit):
                    for listing in items:
                        name, tool = _read_tool(listing, self._slug, era)
                        if isinstance(tool, ListedTool):
                            tools[name] = tool
                        else:
                            left_out[name] = str(tool)
        except TimeoutError as error:
            message = f"did not list its tools within {LIST_TIMEOUT_S:g} s"
            raise UpstreamError(ErrorType.UPSTREAM_TIMEOUT, message) from error
        for name, reason in left_out.items():
            if self._left_out.get(name) != reason:
                logger.warning("server %s: the tool %s is not offered: %s", self._slug, name[:_SHOWN_NAME], reason)
        self._left_out = left_out
        return tools


def _read_tool(listing: Raw, slug: str, era: Era | None) -> tuple[str, ListedTool | InvalidParamHeaderError]:
    """The server's own name of a tool, and the tool, or why no client could call it (SEP-2243)."""
    try:
        head = _decode_head(listing)
        members: dict[str, Any] = jsonrpc.decode_params(listing)
    except jsonrpc.DECODE_ERRORS as error:
        raise UpstreamError(ErrorType.UPSTREAM_PROTOCOL_ERROR, f"lists an invalid tool: {error}") from error
    members["name"] = tool_names.join(slug, head.name)
    try:
        param_headers = compile_schema(head.inputSchema)
    except InvalidParamHeaderError as error:
        return head.name, error
    return head.name, ListedTool(jsonrpc.raw(members), era, _is_repeatable(head.annotations), param_headers)


def _is_repeatable(annotations: Raw | UnsetType) -> bool:
    """Malformed annotations count as none: they are no reason to leave out the tool."""
    try:
        hints = _decode_annotations(annotations) if annotations is not UNSET else None
    except jsonrpc.DECODE_ERRORS:
        return False
    return hints is not None and bool(hints.readOnlyHint or hints.idempotentHint)

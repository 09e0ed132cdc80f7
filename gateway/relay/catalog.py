"""The tools that one upstream offers, as the gateway offers them on: renamed, otherwise byte for byte."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.calls import ErrorType
from gateway.mcp import jsonrpc, tool_names
from gateway.mcp.param_headers import InvalidParamHeaderError, ParamHeaders, compile_schema
from gateway.mcp.revisions import Era
from gateway.upstream.base import UpstreamError, UpstreamRequest, UpstreamResponse

logger = logging.getLogger(__name__)

MAX_PAGES: Final = 100
LIST_TIMEOUT_S: Final = 10.0
REFRESH_AFTER_S: Final = 5.0
"""A name that is not in the catalog is worth a new listing, but not more often than this."""


Ask = Callable[[UpstreamRequest, asyncio.Timeout], Awaitable[UpstreamResponse]]
"""Sends a request to the upstream, within a limit."""


class ListedTool(NamedTuple):
    """One tool: its listing under the gateway's name, and whether calling it twice does no harm."""

    listing: Raw
    era: Era | None
    """In which the upstream listed it."""
    repeatable: bool
    param_headers: ParamHeaders | None = None
    """The arguments that stand in headers as well; nearly every tool has none."""


class _Annotations(Struct):
    readOnlyHint: bool | None = None  # noqa: N815 - the member's name in MCP
    idempotentHint: bool | None = None  # noqa: N815 - the member's name in MCP


class _ToolHead(Struct):
    name: str
    inputSchema: Raw = jsonrpc.EMPTY_OBJECT  # noqa: N815 - the member's name in MCP
    annotations: Raw | UnsetType = UNSET


class _Page(Struct):
    tools: list[Raw]
    nextCursor: str | None = None  # noqa: N815 - the member's name in MCP


_decode_page: Final = msgspec.json.Decoder(_Page).decode
_decode_head: Final = msgspec.json.Decoder(_ToolHead).decode
_decode_annotations: Final = msgspec.json.Decoder(_Annotations | None).decode
_SHOWN_MESSAGE: Final = 500
_SHOWN_NAME: Final = 128


class Catalog:
    """The newest listing of one upstream. One listing is under way at a time, whoever asks."""

    def __init__(self, slug: str, ask: Ask) -> None:
        self._slug = slug
        self._ask = ask
        self._listing: asyncio.Task[dict[str, ListedTool]] | None = None
        self._tried_at = float("-inf")
        self.tools: dict[str, ListedTool] = {}
        """By the upstream's own name; the last listing that succeeded."""
        self.known = False
        """Whether there ever was one."""
        self.bytes = 0
        """What the listing costs a model's context, in bytes of JSON."""
        self._left_out: dict[str, str] = {}
        """Why, by the upstream's own name: the operator is told of each once."""

    async def list(self) -> dict[str, ListedTool]:
        """Ask the upstream for its tools, all pages.

        Raises:
            UpstreamError: it did not answer with a listing; `tools` is still the one before.
        """
        if self._listing is None:
            self._tried_at = time.monotonic()
            self._listing = asyncio.create_task(self._list())
            self._listing.add_done_callback(self._listed)
        return await asyncio.shield(self._listing)

    def forget(self) -> None:
        """The upstream says that its tools have changed: the next name that is not known is worth a look at once."""
        self._tried_at = float("-inf")

    async def find(self, tool: str) -> ListedTool | None:
        """A tool by the upstream's own name; a name never seen is worth one look at the upstream.

        Raises:
            UpstreamError: the upstream did not answer, and its tools were never seen.
        """
        found = self.tools.get(tool)
        if found is not None or (self.known and time.monotonic() - self._tried_at < REFRESH_AFTER_S):
            return found
        try:
            return (await self.list()).get(tool)
        except UpstreamError:
            if self.known:
                return None
            raise

    def _listed(self, task: asyncio.Task[dict[str, ListedTool]]) -> None:
        self._listing = None
        if not task.cancelled() and task.exception() is None:
            self.tools, self.known = task.result(), True
            self.bytes = sum(len(bytes(tool.listing)) for tool in self.tools.values())

    async def _list(self) -> dict[str, ListedTool]:
        try:
            async with asyncio.timeout(LIST_TIMEOUT_S) as limit:
                return await self._pages(limit)
        except TimeoutError as error:
            raise UpstreamError(
                ErrorType.UPSTREAM_TIMEOUT, f"did not list its tools within {LIST_TIMEOUT_S:g} s"
            ) from error

    async def _pages(self, limit: asyncio.Timeout) -> dict[str, ListedTool]:
        tools: dict[str, ListedTool] = {}
        left_out: dict[str, str] = {}
        params: jsonrpc.Params = {}
        for _ in range(MAX_PAGES):
            reply = await self._ask(UpstreamRequest("tools/list", params, repeatable=True), limit)
            page = _read_page(reply)
            for listing in page.tools:
                name, tool = _read_tool(listing, self._slug, reply.era)
                if isinstance(tool, ListedTool):
                    tools[name] = tool
                else:
                    left_out[name] = str(tool)
            if page.nextCursor is None:
                self._leave_out(left_out)
                return tools
            params = {"cursor": jsonrpc.raw(page.nextCursor)}
        raise UpstreamError(ErrorType.UPSTREAM_PROTOCOL_ERROR, f"lists tools on more than {MAX_PAGES} pages")

    def _leave_out(self, reasons: dict[str, str]) -> None:
        for name, why in reasons.items():
            if self._left_out.get(name) != why:
                logger.warning("server %s: the tool %s is not offered: %s", self._slug, name[:_SHOWN_NAME], why)
        self._left_out = reasons


def _read_page(reply: UpstreamResponse) -> _Page:
    if reply.error is not UNSET:
        try:
            error = jsonrpc.decode_error(reply.error)
            why = f"{error.message[:_SHOWN_MESSAGE]} ({error.code})"
        except jsonrpc.DECODE_ERRORS:
            why = "with an error that is none of JSON-RPC's"
        raise UpstreamError(ErrorType.JSONRPC_ERROR, f"refused tools/list: {why}")
    try:
        return _decode_page(b"" if reply.result is UNSET else reply.result)
    except jsonrpc.DECODE_ERRORS as error:
        raise UpstreamError(
            ErrorType.UPSTREAM_PROTOCOL_ERROR, f"answered tools/list with no list of tools: {error}"
        ) from error


def _read_tool(listing: Raw, slug: str, era: Era | None) -> tuple[str, ListedTool | InvalidParamHeaderError]:
    """The upstream's own name of a tool, and the tool, or why nobody could call it (SEP-2243)."""
    try:
        head = _decode_head(listing)
        members: dict[str, Any] = jsonrpc.decode_params(listing)
    except jsonrpc.DECODE_ERRORS as error:
        raise UpstreamError(ErrorType.UPSTREAM_PROTOCOL_ERROR, f"lists a tool that is none: {error}") from error
    members["name"] = tool_names.join(slug, head.name)
    try:
        mirrored = compile_schema(head.inputSchema)
    except InvalidParamHeaderError as error:
        return head.name, error
    return head.name, ListedTool(jsonrpc.raw(members), era, _is_repeatable(head.annotations), mirrored)


def _is_repeatable(annotations: Raw | UnsetType) -> bool:
    """Hints that are no hints are none, and no reason to do without the tool."""
    try:
        hints = _decode_annotations(annotations) if annotations is not UNSET else None
    except jsonrpc.DECODE_ERRORS:
        return False
    return hints is not None and bool(hints.readOnlyHint or hints.idempotentHint)

"""The fixture's tools that ask nobody: content of every kind, errors, progress, logs, and lists that change."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from mcp.server.subscriptions import PromptsListChanged, SubscriptionBus, ToolsListChanged
from mcp_types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    TextContent,
    TextResourceContents,
    Tool,
)

from tests.conformance.input_requests import Asking, Context
from tests.conformance.samples import JSON_SCHEMA_2020_12, NOTHING, PNG, WAV

PAUSE_S: Final = 0.05
"""Between two notifications, so that a client that waits for the result sees them apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One call."""

    ctx: Context
    arguments: dict[str, Any]
    asking: Asking
    bus: SubscriptionBus


Run = Callable[[Turn], Awaitable[CallToolResult]]


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool: how it is listed, and what its calls do."""

    listing: Tool
    run: Run


def offer(name: str, description: str, run: Run, schema: dict[str, Any] = NOTHING) -> Offer:
    """One tool, without arguments unless a schema says otherwise."""
    return Offer(Tool(name=name, description=description, input_schema=schema), run)


def text(words: str) -> CallToolResult:
    """A result of one text."""
    return CallToolResult(content=[TextContent(type="text", text=words)])


def image() -> ImageContent:
    """The sample image as content."""
    return ImageContent(type="image", data=PNG, mime_type="image/png")


def embedded(uri: str, mime_type: str, words: str) -> EmbeddedResource:
    """A resource inside a message."""
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=words))


def _always(*content: ContentBlock, is_error: bool = False) -> Run:
    async def run(_: Turn) -> CallToolResult:
        return CallToolResult(content=list(content), is_error=is_error)

    return run


def _says(words: str) -> TextContent:
    return TextContent(type="text", text=words)


async def _log(turn: Turn, *lines: str) -> None:
    for line in lines:
        await turn.ctx.session.send_log_message("info", line, related_request_id=turn.ctx.request_id)
        await asyncio.sleep(PAUSE_S)


async def _with_logging(turn: Turn) -> CallToolResult:
    await _log(turn, "Tool execution started", "Tool processing data", "Tool execution completed")
    return text("Three lines were logged.")


async def _with_progress(turn: Turn) -> CallToolResult:
    for done in (0, 50, 100):
        await turn.ctx.session.report_progress(done, 100, f"Completed step {done} of 100")
        await asyncio.sleep(PAUSE_S)
    return text("Progress was reported three times.")


async def _reconnection(turn: Turn) -> CallToolResult:
    """Close the stream in the middle: the client asks for the rest by a GET with `Last-Event-ID`."""
    await _log(turn, "Before the stream is closed")
    if turn.ctx.close_sse_stream is not None:
        await turn.ctx.close_sse_stream()
    await _log(turn, "After the stream was closed")
    return text("The call went on without its stream.")


async def _echo(turn: Turn) -> CallToolResult:
    return text(f"Called with {sorted(turn.arguments)}.")


async def _change_tools(turn: Turn) -> CallToolResult:
    """Say that the tools have changed: to those that listen, and to this session."""
    await turn.bus.publish(ToolsListChanged())
    if not turn.asking.modern:
        await turn.ctx.session.send_tool_list_changed()
    return text("Told that the tools have changed.")


async def _change_prompts(turn: Turn) -> CallToolResult:
    await turn.bus.publish(PromptsListChanged())
    if not turn.asking.modern:
        await turn.ctx.session.send_prompt_list_changed()
    return text("Told that the prompts have changed.")


_CUSTOM_HEADER: Final = {
    "type": "object",
    "properties": {"region": {"type": "string", "x-mcp-header": "Region"}, "query": {"type": "string"}},
}

PLAIN: Final = (
    offer("test_simple_text", "Answers with a text.", _always(_says("This is a simple text response for testing."))),
    offer("test_image_content", "Answers with an image.", _always(image())),
    offer(
        "test_audio_content",
        "Answers with a sound.",
        _always(AudioContent(type="audio", data=WAV, mime_type="audio/wav")),
    ),
    offer(
        "test_embedded_resource",
        "Answers with a resource.",
        _always(embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")),
    ),
    offer(
        "test_multiple_content_types",
        "Answers with a text, an image and a resource.",
        _always(
            _says("Multiple content types test:"),
            image(),
            embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
        ),
    ),
    offer(
        "test_error_handling",
        "Fails.",
        _always(_says("This tool intentionally returns an error for testing"), is_error=True),
    ),
    offer("test_tool_with_logging", "Logs three lines.", _with_logging),
    offer("test_logging_tool", "Logs three lines, for those who asked for them.", _with_logging),
    offer("test_tool_with_progress", "Reports progress three times.", _with_progress),
    offer("test_reconnection", "Closes the stream of its call.", _reconnection),
    offer("test_trigger_tool_change", "Says that the tools have changed.", _change_tools),
    offer("test_trigger_prompt_change", "Says that the prompts have changed.", _change_prompts),
    offer("test_custom_header", "Has an argument that is mirrored in a header.", _echo, _CUSTOM_HEADER),
    offer("json_schema_2020_12_tool", "Tool with JSON Schema 2020-12 features", _echo, JSON_SCHEMA_2020_12),
)

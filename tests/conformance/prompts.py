"""The fixture's prompts, and the completion of their arguments."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    ContentBlock,
    ElicitResult,
    GetPromptRequestParams,
    GetPromptResult,
    InputRequiredResult,
    ListPromptsResult,
    PaginatedRequestParams,
    Prompt,
    PromptArgument,
    PromptMessage,
    TextContent,
)

from tests.conformance.input_requests import Asking, Context, InputRequired, form
from tests.conformance.tools import embedded, image

Arguments = dict[str, str]
Messages = Callable[[Asking, Arguments], Awaitable[list[ContentBlock]]]


@dataclass(frozen=True, slots=True)
class _Offer:
    listing: Prompt
    messages: Messages


def _offer(name: str, description: str, messages: Messages, *arguments: str) -> _Offer:
    required = [PromptArgument(name=argument, description=f"The {argument}", required=True) for argument in arguments]
    return _Offer(Prompt(name=name, description=description, arguments=required), messages)


def _says(words: str) -> TextContent:
    return TextContent(type="text", text=words)


async def _simple(_: Asking, _arguments: Arguments) -> list[ContentBlock]:
    return [_says("This is a simple prompt for testing.")]


async def _with_arguments(_: Asking, arguments: Arguments) -> list[ContentBlock]:
    return [_says(f"Prompt with arguments: arg1='{arguments['arg1']}', arg2='{arguments['arg2']}'")]


async def _with_resource(_: Asking, arguments: Arguments) -> list[ContentBlock]:
    resource = embedded(arguments["resourceUri"], "text/plain", "Embedded resource content for testing.")
    return [resource, _says("Please process the embedded resource above.")]


async def _with_image(_: Asking, _arguments: Arguments) -> list[ContentBlock]:
    return [image(), _says("Please analyze the image above.")]


async def _that_asks(asking: Asking, _arguments: Arguments) -> list[ContentBlock]:
    request = form("What context should the prompt use?", context={"type": "string"})
    answer = await asking.ask_one("user_context", request, ElicitResult)
    return [_says(f"Context: {(answer.content or {}).get('context')}")]


_PROMPTS: Final = {
    prompt.listing.name: prompt
    for prompt in (
        _offer("test_simple_prompt", "A text.", _simple),
        _offer("test_prompt_with_arguments", "A text with its arguments.", _with_arguments, "arg1", "arg2"),
        _offer("test_prompt_with_embedded_resource", "A resource and a text.", _with_resource, "resourceUri"),
        _offer("test_prompt_with_image", "An image and a text.", _with_image),
        _offer("test_input_required_result_prompt", "Asks the user for the context.", _that_asks),
    )
}
_WORDS: Final = ("paris", "park", "party", "test", "testing")
"""What any argument of any prompt may be completed to."""


async def list_prompts(_ctx: Context, _params: PaginatedRequestParams | None) -> ListPromptsResult:
    """`prompts/list`."""
    return ListPromptsResult(prompts=[prompt.listing for prompt in _PROMPTS.values()])


async def get_prompt(ctx: Context, params: GetPromptRequestParams) -> GetPromptResult | InputRequiredResult:
    """`prompts/get`."""
    prompt = _PROMPTS.get(params.name)
    if prompt is None:
        raise MCPError(INVALID_PARAMS, f"Unknown prompt: {params.name}")
    arguments = params.arguments or {}
    missing = [a.name for a in prompt.listing.arguments or [] if a.name not in arguments]
    if missing:
        raise MCPError(INVALID_PARAMS, f"Missing arguments: {', '.join(missing)}")
    asking = Asking.of(ctx, params.input_responses, params.request_state)
    try:
        contents = await prompt.messages(asking, arguments)
    except InputRequired as required:
        return required.result
    return GetPromptResult(messages=[PromptMessage(role="user", content=content) for content in contents])


async def complete(_ctx: Context, params: CompleteRequestParams) -> CompleteResult:
    """`completion/complete`: every word that begins like the argument."""
    values = [word for word in _WORDS if word.startswith(params.argument.value)]
    return CompleteResult(completion=Completion(values=values, total=len(values), has_more=False))

"""How the fixture asks a client for input, in either era: by a request of its own, or by a result that asks for it.

A legacy client is asked on the stream of its call, and answers while the call runs. A modern one gets the questions as
the result (`input_required`) and sends the same request again with the answers; so a tool or prompt that asks is run
anew from its top, and the answers of former rounds come back in `requestState`, which the server seals.

Source: specification 2026-07-28, basic/patterns/mrtr; 2025-11-25, client/sampling, client/elicitation, client/roots.
"""

from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    INVALID_REQUEST,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequest,
    InputRequests,
    InputRequiredResult,
    InputResponse,
    InputResponses,
    ListRootsRequest,
    ListRootsResult,
    SamplingMessage,
    TextContent,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter

Context = ServerRequestContext[dict[str, Any]]
Answer = TypeVar("Answer", CreateMessageResult, ElicitResult, ListRootsResult)

_CAPABILITY: Final = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    "roots/list": "roots",
}
_RESULTS: Final[dict[str, type[CreateMessageResult | ElicitResult | ListRootsResult]]] = {
    "sampling/createMessage": CreateMessageResult,
    "elicitation/create": ElicitResult,
    "roots/list": ListRootsResult,
}
_ANSWERS: Final = TypeAdapter(InputResponses)


class InputRequired(Exception):  # noqa: N818 - an outcome, raised to end the round
    """A modern client has to answer first: `result` says what."""

    def __init__(self, result: InputRequiredResult) -> None:
        super().__init__("the client has to answer first")
        self.result = result


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """The questions of one request; `answered` is what its client has answered so far, by key."""

    ctx: Context
    state: str | None
    answered: InputResponses = field(default_factory=dict)

    @classmethod
    def of(cls, ctx: Context, responses: InputResponses | None, state: str | None) -> "Asking":
        """From a request's `inputResponses` and `requestState`."""
        former = _ANSWERS.validate_json(state) if state else {}
        return cls(ctx=ctx, state=state, answered={**former, **(responses or {})})

    @property
    def modern(self) -> bool:
        """Whether the client is asked by results."""
        return self.ctx.protocol_version in MODERN_PROTOCOL_VERSIONS

    def allows(self, request: InputRequest) -> bool:
        """Whether the client declared what it takes to answer."""
        capabilities = self.ctx.session.client_capabilities
        return getattr(capabilities, _CAPABILITY[request.method], None) is not None

    async def ask(self, requests: InputRequests, *, keep_state: bool = False) -> InputResponses:
        """The client's answers, by the requests' keys; with `keep_state` a modern client gets a `requestState`.

        Raises:
            InputRequired: a modern client has not answered all of them yet.
            MCPError: the client cannot be asked this, or refused.
        """
        for request in requests.values():
            self.demand(request)
        if not self.modern:
            return {key: await self._ask_now(request) for key, request in requests.items()}
        open_requests = {key: request for key, request in requests.items() if not self._has(key, request)}
        if open_requests:
            raise InputRequired(self._round(open_requests, keep_state=keep_state))
        return {key: self.answered[key] for key in requests}

    async def ask_one(self, key: str, request: InputRequest, kind: type[Answer], *, keep_state: bool = False) -> Answer:
        """One answer, of the kind that belongs to the request."""
        answer = (await self.ask({key: request}, keep_state=keep_state))[key]
        assert isinstance(answer, kind)
        return answer

    def demand(self, request: InputRequest) -> None:
        """Refuse a client that did not declare what the request takes."""
        if not self.allows(request):
            name = _CAPABILITY[request.method]
            raise MCPError(
                MISSING_REQUIRED_CLIENT_CAPABILITY if self.modern else INVALID_REQUEST,
                f"This takes a client with the capability {name!r}",
                {"requiredCapabilities": {name: {}}},
            )

    def _has(self, key: str, request: InputRequest) -> bool:
        return isinstance(self.answered.get(key), _RESULTS[request.method])

    def _round(self, requests: InputRequests, *, keep_state: bool) -> InputRequiredResult:
        state = _ANSWERS.dump_json(self.answered, by_alias=True, exclude_none=True).decode() if keep_state else None
        return InputRequiredResult(input_requests=requests, request_state=state)

    async def _ask_now(self, request: InputRequest) -> InputResponse:
        on_the_calls_stream = ServerMessageMetadata(related_request_id=self.ctx.request_id)
        return await self.ctx.session.send_request(request, _RESULTS[request.method], metadata=on_the_calls_stream)


def form(message: str, **properties: dict[str, Any]) -> ElicitRequest:
    """Ask the user to fill in a form; all fields are required."""
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def completion(prompt: str, max_tokens: int = 100) -> CreateMessageRequest:
    """Ask the client's model."""
    message = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=max_tokens))


def roots() -> ListRootsRequest:
    """Ask for the client's roots."""
    return ListRootsRequest()


def said(result: CreateMessageResult) -> str:
    """What the model said."""
    return result.content.text if isinstance(result.content, TextContent) else result.content.type

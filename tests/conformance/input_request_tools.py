"""The fixture's tools that ask their client: for input of its user, for a completion of its model, for its roots."""

from typing import Any, Final

from mcp_types import CallToolResult, CreateMessageResult, ElicitResult, InputRequests, ListRootsResult

from tests.conformance.input_requests import Answer, completion, form, roots, said
from tests.conformance.samples import CHOICES, DEFAULTS
from tests.conformance.tools import Run, Turn, offer, text

_NAME: Final = form("What is your name?", name={"type": "string"})
_CONFIRM: Final = form("Please confirm", ok={"type": "boolean"})


def _takes(argument: str) -> dict[str, Any]:
    return {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}


def _field(answer: ElicitResult, name: str) -> object:
    return (answer.content or {}).get(name)


def _action(answer: ElicitResult) -> str:
    return f"action={answer.action}, content={answer.content}"


async def _sampling(turn: Turn) -> CallToolResult:
    request = completion(str(turn.arguments.get("prompt")))
    answer = await turn.asking.ask_one("answer", request, CreateMessageResult)
    return text(f"LLM response: {said(answer)}")


async def _elicitation(turn: Turn) -> CallToolResult:
    request = form(
        str(turn.arguments.get("message")),
        username={"type": "string", "description": "User's response"},
        email={"type": "string", "description": "User's email address"},
    )
    return text(f"User response: {_action(await turn.asking.ask_one('user', request, ElicitResult))}")


def _fills_in(message: str, fields: dict[str, dict[str, Any]]) -> Run:
    async def run(turn: Turn) -> CallToolResult:
        answer = await turn.asking.ask_one("fields", form(message, **fields), ElicitResult)
        return text(f"Elicitation completed: {_action(answer)}")

    return run


async def _missing_capability(turn: Turn) -> CallToolResult:
    answer = await turn.asking.ask_one("anything", completion("Say anything"), CreateMessageResult)
    return text(f"The client can sample: {said(answer)}")


async def _streaming_elicitation(turn: Turn) -> CallToolResult:
    await turn.ctx.session.report_progress(1, 2, "About to ask")
    return text(f"Confirmed: {_action(await turn.asking.ask_one('confirm', _CONFIRM, ElicitResult))}")


async def _ask_name(turn: Turn) -> CallToolResult:
    answer = await turn.asking.ask_one("user_name", _NAME, ElicitResult)
    return text(f"Hello, {_field(answer, 'name')}!")


async def _ask_model(turn: Turn) -> CallToolResult:
    request = completion("What is the capital of France?")
    return text(said(await turn.asking.ask_one("capital_question", request, CreateMessageResult)))


async def _ask_roots(turn: Turn) -> CallToolResult:
    answer = await turn.asking.ask_one("client_roots", roots(), ListRootsResult)
    return text(f"Roots: {', '.join(str(root.uri) for root in answer.roots)}")


async def _ask_with_state(turn: Turn) -> CallToolResult:
    """The seal was verified before the call came here: a state that stands in it is the fixture's own."""
    await turn.asking.ask_one("confirm", _CONFIRM, ElicitResult, keep_state=True)
    kept = turn.asking.state is not None or not turn.asking.modern
    return text("Confirmed: state-ok" if kept else "Confirmed: the state is missing")


async def _ask_everything(turn: Turn) -> CallToolResult:
    requests: InputRequests = {
        "user_name": _NAME,
        "greeting": completion("Generate a greeting", 50),
        "client_roots": roots(),
    }
    answers = await turn.asking.ask(requests, keep_state=True)
    name = _of_kind(answers["user_name"], ElicitResult)
    greeting = _of_kind(answers["greeting"], CreateMessageResult)
    listed = _of_kind(answers["client_roots"], ListRootsResult)
    return text(f"{said(greeting)}, {_field(name, 'name')}, at {len(listed.roots)} roots!")


def _of_kind(answer: object, kind: type[Answer]) -> Answer:
    assert isinstance(answer, kind)
    return answer


async def _ask_twice(turn: Turn) -> CallToolResult:
    step1 = form("Step 1: What is your name?", name={"type": "string"})
    name = await turn.asking.ask_one("step1", step1, ElicitResult, keep_state=True)
    step2 = form("Step 2: What is your favorite color?", color={"type": "string"})
    color = await turn.asking.ask_one("step2", step2, ElicitResult, keep_state=True)
    return text(f"{_field(name, 'name')} likes {_field(color, 'color')}.")


async def _ask_what_is_allowed(turn: Turn) -> CallToolResult:
    everything: InputRequests = {"name": _NAME, "greeting": completion("Generate a greeting"), "roots": roots()}
    allowed = {key: request for key, request in everything.items() if turn.asking.allows(request)}
    answers = await turn.asking.ask(allowed)
    return text(f"Answered: {', '.join(answers) or 'nothing'}")


ASKING: Final = (
    offer("test_sampling", "Asks the client's model.", _sampling, _takes("prompt")),
    offer("test_elicitation", "Asks the user.", _elicitation, _takes("message")),
    offer(
        "test_elicitation_sep1034_defaults",
        "Asks the user, with a default for each field.",
        _fills_in("Please check your details", DEFAULTS),
    ),
    offer(
        "test_elicitation_sep1330_enums",
        "Asks the user to choose, in five ways.",
        _fills_in("Please choose", CHOICES),
    ),
    offer("test_missing_capability", "Takes a client that can sample.", _missing_capability),
    offer("test_streaming_elicitation", "Asks the user in the middle of a stream.", _streaming_elicitation),
    offer("test_input_required_result_elicitation", "Asks the user for a name.", _ask_name),
    offer("test_input_required_result_sampling", "Asks the client's model for a capital.", _ask_model),
    offer("test_input_required_result_list_roots", "Asks for the client's roots.", _ask_roots),
    offer("test_input_required_result_request_state", "Asks, and keeps a state.", _ask_with_state),
    offer("test_input_required_result_tampered_state", "Asks, and keeps a sealed state.", _ask_with_state),
    offer("test_input_required_result_multiple_inputs", "Asks three things at once.", _ask_everything),
    offer("test_input_required_result_multi_round", "Asks one thing after the other.", _ask_twice),
    offer("test_input_required_result_capabilities", "Asks what the client can answer.", _ask_what_is_allowed),
)

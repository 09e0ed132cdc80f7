"""What a `completion/complete` is about."""

import json
from typing import Any

import pytest
from msgspec import Raw

from gateway.mcp import completion_refs, jsonrpc
from gateway.mcp.completion_refs import PromptRef, ResourceRef
from gateway.mcp.jsonrpc import InvalidParamsError


@pytest.mark.parametrize(
    ("ref", "found"),
    [
        ({"type": "ref/prompt", "name": "files__greet", "title": "Greet"}, PromptRef("files__greet")),
        ({"type": "ref/resource", "uri": "test://{id}"}, ResourceRef("test://{id}")),
    ],
    ids=["prompt", "resource"],
)
def test_a_completion_is_about_a_prompt_or_a_resource(ref: Any, found: PromptRef | ResourceRef) -> None:
    assert completion_refs.read({"ref": jsonrpc.raw(ref)}) == found


@pytest.mark.parametrize(
    "ref",
    [
        b"null",
        b"7",
        b"{}",
        b'{"type":"ref/tool","name":"x"}',
        b'{"type":"ref/prompt"}',
        b'{"type":"ref/prompt","name":7}',
    ],
)
def test_a_completion_of_nothing_is_refused(ref: bytes) -> None:
    with pytest.raises(InvalidParamsError):
        completion_refs.read({"ref": Raw(ref)})
    with pytest.raises(InvalidParamsError):
        completion_refs.read({})


def test_a_server_is_asked_for_its_own_name_of_the_prompt_and_the_rest_stays() -> None:
    params = {
        "ref": Raw(b'{"type":"ref/prompt","name":"files__greet","x":[ 1.0 ]}'),
        "argument": Raw(b'{ "name":"a","value":"b" }'),
    }
    renamed = completion_refs.renamed(params, "greet")
    assert json.loads(bytes(renamed["ref"])) == {"type": "ref/prompt", "name": "greet", "x": [1.0]}
    assert b"[ 1.0 ]" in bytes(renamed["ref"])
    assert renamed["argument"] is params["argument"]
    assert b"files__greet" in bytes(params["ref"])

"""Completion of arguments: at the server of the prompt or of the template."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.http1.raw import raw
from tests.relay.offering import ERAS, Offering, asked, asking
from tests.relay.rig import rig


def of_prompt(name: Any) -> dict[str, Any]:
    return {"ref": {"type": "ref/prompt", "name": name}, "argument": {"name": "x", "value": "v"}}


def of_template(uri: str) -> dict[str, Any]:
    return {"ref": {"type": "ref/resource", "uri": uri}, "argument": {"name": "x", "value": "v"}}


@pytest.mark.parametrize("upstream", ERAS)
@pytest.mark.parametrize("client", ERAS)
async def test_a_prompts_argument_is_completed_by_its_server_under_its_own_name(
    tmp_path: Path, client: str, upstream: str
) -> None:
    async with (
        raw(Offering(upstream, prompts=["p"], completions=["other"])) as first,
        raw(Offering(upstream, prompts=["p"], completions=["value", "very"])) as second,
        rig(tmp_path, {"a": first, "b": second}) as relay,
    ):
        params = {**of_prompt("b__p"), "context": {"arguments": {"y": "1"}}}
        response = await relay.post(asking(client, "completion/complete", params))

        assert response.json()["result"]["completion"] == {"values": ["value", "very"]}
        assert response.json()["result"].get("resultType") == ("complete" if client == "modern" else None)
        assert asked(first.requests) == []
        (sent,) = asked(second.requests)
        expected = {**params, "ref": {"type": "ref/prompt", "name": "p"}}
        assert {name: sent.message["params"][name] for name in expected} == expected
        assert "mcp-name" not in sent.headers


@pytest.mark.parametrize("client", ERAS)
async def test_a_templates_argument_is_completed_by_the_server_that_lists_the_template(
    tmp_path: Path, client: str
) -> None:
    async with (
        raw(Offering(resources={}, templates=["a://{x}"], completions=["other"])) as first,
        raw(Offering(resources={}, templates=["b://{x}"], completions=["value"])) as second,
        rig(tmp_path, {"a": first, "b": second}) as relay,
    ):
        response = await relay.post(asking(client, "completion/complete", of_template("b://{x}")))

        assert response.json()["result"]["completion"] == {"values": ["value"]}
        assert asked(first.requests) == []
        assert asked(second.requests)[0].message["params"]["ref"] == {"type": "ref/resource", "uri": "b://{x}"}


@pytest.mark.parametrize("client", ERAS)
@pytest.mark.parametrize("params", [of_prompt("plain__p"), of_template("plain://{x}")])
async def test_a_server_without_completions_is_not_asked(tmp_path: Path, client: str, params: Any) -> None:
    async with (
        raw(Offering(prompts=["p"], resources={}, templates=["plain://{x}"])) as plain,
        raw(Offering(completions=["value"])) as completes,
        rig(tmp_path, {"plain": plain, "completes": completes}) as relay,
    ):
        await relay.post(asking(client, "tools/list"))
        response = await relay.post(asking(client, "completion/complete", params))

        assert response.json()["result"]["completion"] == {"values": []}
        assert response.json()["result"].get("resultType") == ("complete" if client == "modern" else None)
        assert asked(plain.requests) == asked(completes.requests) == []


@pytest.mark.parametrize("client", ERAS)
@pytest.mark.parametrize(
    "params",
    [{}, {"ref": None}, {"ref": {"type": "ref/tool", "name": "x"}}, of_prompt(5), of_prompt("p"), of_prompt("no__p")],
    ids=json.dumps,
)
async def test_an_invalid_completion_reference_is_rejected(tmp_path: Path, client: str, params: Any) -> None:
    async with raw(Offering(prompts=["p"], completions=["value"])) as server, rig(tmp_path, {"a": server}) as relay:
        response = await relay.post(asking(client, "completion/complete", params))

        assert response.json()["error"]["code"] == -32602
        assert response.status_code == (400 if client == "modern" else 200)
        assert asked(server.requests) == []

"""Clients that people use, and servers that people use, with Callscope between them.

`make client-tools` installs those that are not the tests' own.
"""

import asyncio
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.backends import missing
from tests.system.clients import client as sdk2
from tests.system.gateway_process import STDIO, Gateway, eventually, running, upstreams

pytestmark = pytest.mark.backend

TOOLS: Final = Path(__file__).parent.parent.parent / ".tools" / "clients"
NODE: Final = TOOLS / "node" / "node_modules" / ".bin" / "node"
HERE: Final = Path(__file__).parent
CLIENTS: Final = {
    "python-1": ("sdk1/bin/python", HERE / "sdk1.py"),
    "fastmcp": ("fastmcp/bin/python", HERE / "fastmcp_client.py"),
    "typescript-v1": (NODE, "typescript.mjs", "v1"),
    "typescript-v2": (NODE, "typescript.mjs", "v2"),
    "typescript-v2-auto": (NODE, "typescript.mjs", "v2-auto"),
}
TEXT: Final = "grüße, \u2603"
CALLS: Final[list[tuple[str, dict[str, Any]]]] = [
    *((f"{server}__echo", {"text": TEXT}) for server in ("modern", "legacy", "stdio")),
    *((f"{server}__count", {}) for server in ("modern", "legacy", "stdio")),
    *((f"{server}__tool_error", {}) for server in ("modern", "legacy")),
    *((f"{server}__jsonrpc_error", {}) for server in ("modern", "legacy")),
]


@pytest.fixture(scope="module")
def installed() -> None:
    """The tools are there; in CI they must be."""
    if not (TOOLS / "servers" / "bin" / "python").exists() or not NODE.exists():
        missing("no other clients and servers are installed: `make client-tools` installs them (with npm)")
    shutil.copy(HERE / "typescript.mjs", TOOLS / "node")  # a module is looked for from where its importer lies


def drive(name: str, gateway: Gateway, calls: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Run a client: it reads the calls, and writes `tools` (their names) and `answers`, one for each call.

    An answer has `isError`, `content` and `progress` (the steps that it was told), or `code` and `message`.
    """
    program, *arguments = CLIENTS[name]
    done = subprocess.run(
        [TOOLS / program, *arguments, gateway.url, gateway.secrets[name]],
        cwd=TOOLS / "node",
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def gateway(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:  # noqa: ARG001 - a fixture it needs
    with upstreams("modern", "legacy") as urls:
        servers = {**{kind: {"url": url} for kind, url in urls.items()}, "stdio": STDIO}
        with running(tmp_path_factory.mktemp("clients"), servers, {name: {} for name in CLIENTS}) as gateway:
            yield gateway


def directly(calls: Sequence[tuple[str, Any]], answers: Sequence[Any]) -> None:
    """The answers are what the scripted servers give, whoever asks."""
    for (name, arguments), answer in zip(calls, answers, strict=True):
        tool = name.partition("__")[2]
        if tool == "echo":
            assert not answer["isError"]
            assert json.loads(answer["content"][0]["text"])["arguments"] == arguments
        elif tool == "count":
            assert not answer["isError"]
            assert len(answer["progress"]) == 5
            assert answer["progress"] == sorted(set(answer["progress"]))
        elif tool == "tool_error":
            assert answer["isError"]
            assert "the tool says no" in answer["content"][0]["text"]
        else:
            assert "the server says no" in answer["message"]


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_lists_and_calls_and_every_call_is_recorded_under_its_name(name: str, gateway: Gateway) -> None:
    told = drive(name, gateway, CALLS)
    assert {f"{server}__echo" for server in ("modern", "legacy", "stdio")} <= set(told["tools"])
    directly(CALLS, told["answers"])

    rows = eventually(lambda: _rows(gateway, name, len(CALLS)))
    expected = Counter((f"{row['server_slug']}__{row['tool_name']}", row["status"]) for row in rows)
    failing = ("tool_error", "jsonrpc_error")
    assert expected == Counter((tool, "error" if tool.endswith(failing) else "success") for tool, _ in CALLS)


def _rows(gateway: Gateway, token_id: str, count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = gateway.ask("/analytics/calls", token=token_id, limit="100")["calls"]
    assert len(rows) == count
    return rows


@pytest.mark.usefixtures("installed")
def test_the_reference_servers_answer_through_a_workspace(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "note.txt").write_text(TEXT)
    modules = TOOLS / "node" / "node_modules" / "@modelcontextprotocol"
    python = str(TOOLS / "servers" / "bin" / "python")
    servers: dict[str, dict[str, Any]] = {
        "files": {
            "command": str(NODE),
            "args": [str(modules / "server-filesystem" / "dist" / "index.js"), str(folder)],
        },
        "everything": {
            "command": str(NODE),
            "args": [str(modules / "server-everything" / "dist" / "index.js"), "stdio"],
        },
        "time": {"command": python, "args": ["-m", "mcp_server_time", "--local-timezone=UTC"]},
    }
    calls: list[tuple[str, dict[str, Any], str]] = [
        ("files__read_text_file", {"path": str(folder / "note.txt")}, TEXT),
        ("files__list_directory", {"path": str(folder)}, "note.txt"),
        ("everything__echo", {"message": TEXT}, TEXT),
        ("time__get_current_time", {"timezone": "Europe/Berlin"}, "Europe/Berlin"),
    ]
    with running(tmp_path, servers, {"alice": {}}) as gateway:
        for mode in ("auto", "legacy"):
            answers = asyncio.run(_call_all(gateway, mode, [(name, arguments) for name, arguments, _ in calls]))
            for (_, _, expected), text in zip(calls, answers, strict=True):
                assert expected in text
        rows = eventually(lambda: _rows(gateway, "alice", 2 * len(calls)))
    assert {row["status"] for row in rows} == {"success"}


async def _call_all(gateway: Gateway, mode: Any, calls: Sequence[tuple[str, Any]]) -> list[str]:
    async with sdk2(gateway, "alice", mode) as client:
        listed = {tool.name for tool in (await client.list_tools()).tools}
        assert {name for name, _ in calls} <= listed
        answers = [await client.call_tool(name, arguments) for name, arguments in calls]
    return [" ".join(getattr(block, "text", "") for block in answer.content) for answer in answers]

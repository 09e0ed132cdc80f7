"""Who takes part in the demo, and the configuration that it writes."""

import json
from pathlib import Path

from gateway.config import load
from gateway.demo.environment import READY, configuration
from gateway.demo.fixtures import GUEST, MEMBERS, WORKSPACES


def test_every_member_calls_servers_of_their_own_workspace_and_only_modern_ones_are_impatient() -> None:
    for member in MEMBERS:
        for pattern in member.patterns:
            assert pattern.tool.partition("__")[0] in WORKSPACES[member.workspace]
            assert pattern.timeout_s is None or member.mode == "auto"


def test_the_configuration_is_valid_and_has_everybody_in_it(tmp_path: Path) -> None:
    digests = {member.token_id: f"{i:064x}" for i, member in enumerate((*MEMBERS, GUEST))}
    urls = dict.fromkeys(("github", "billing", "warehouse", "mail"), "http://127.0.0.1:1/mcp")
    addresses = {"relay": "127.0.0.1:0", "observer": "127.0.0.1:0"}
    path = tmp_path / "callscope.yaml"
    path.write_text(json.dumps(configuration(addresses, urls, digests, "key")))

    config = load(path, {})

    assert {slug: [token.name for token in workspace.tokens] for slug, workspace in config.workspaces.items()} == {
        "engineering": ["Alice Cursor", "Bob Claude Code", "CI Bot", "You"],
        "support": ["Dana Claude Desktop", "Triage Bot"],
    }
    assert {slug: tuple(workspace.servers) for slug, workspace in config.workspaces.items()} == WORKSPACES


def test_the_line_that_says_that_the_gateway_is_ready_has_both_addresses() -> None:
    ready = READY.search(
        "callscope is ready: relay http://127.0.0.1:8080/ws/<workspace>, observer http://127.0.0.1:9464/metrics\n"
    )

    assert ready is not None
    assert ready.groupdict() == {"relay": "http://127.0.0.1:8080", "observer": "http://127.0.0.1:9464"}

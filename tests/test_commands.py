"""The commands that people type: what they print can be used as it is, and a mistake is a line and status 2."""

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import jwt
import pytest
import yaml
from click.testing import CliRunner, Result

from gateway.commands import VIEWS, commands
from gateway.config import MAX_SLUG, load
from gateway.tokens import identifier

SECRET = "a secret of the tests that is long enough"
TREE = {
    "api": {"jwt": {"secret": SECRET}},
    "workspaces": {
        "engineering": {
            "tokens": [
                {"id": "alice", "name": "Alice", "sha256": "a" * 64},
                {"id": "bob", "name": "Bob", "sha256": "b" * 64},
            ]
        },
        "support": {"tokens": [{"id": "dana", "name": "Dana", "sha256": "d" * 64}]},
        "empty": {},
    },
}


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(commands, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "callscope.yaml"
    path.write_text(json.dumps(TREE))
    return str(path)


# -- token


@pytest.mark.parametrize("name", ["Alice Cursor", "x" * 200, "a" * 63 + " b", "日本語", "🙂 …"])
def test_the_line_that_token_prints_is_an_entry_of_the_configuration(tmp_path: Path, name: str) -> None:
    printed = run("token", "--workspace", "engineering", "--name", name, "--expires-in", "60")

    [entry] = [line for line in printed.stdout.splitlines() if line.startswith("- ")]
    path = tmp_path / "callscope.yaml"
    path.write_text(f"workspaces:\n  engineering:\n    tokens:\n    {entry}\n")
    [token] = load(path).workspaces["engineering"].tokens
    assert token.name == name
    assert len(token.id) <= MAX_SLUG
    assert printed.exit_code == 0


def test_the_advice_that_token_prints_says_what_becomes_of_an_empty_list() -> None:
    printed = run("token", "--workspace", "engineering", "--name", "Alice").stdout

    assert "below `tokens:` of the workspace engineering; it replaces the [] of `tokens: []`" in printed


def test_options_that_no_configuration_could_have_are_refused_all_at_once() -> None:
    refused = run("token", "--workspace", "a__b", "--name", "", "--url", "nowhere")

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert [line.partition(":")[0] for line in refused.stderr.splitlines()] == ["--workspace", "--name", "--url"]


def test_a_lifetime_beyond_every_calendar_is_refused(config: str) -> None:
    assert run("token", "--workspace", "a", "--name", "A", "--expires-in", "1" + "0" * 15).exit_code == 2
    assert run("jwt", "--config", config, "--workspace", "*", "--ttl", "1" + "0" * 15).exit_code == 2


def test_an_id_that_is_cut_is_still_a_slug() -> None:
    assert identifier("a" * 63 + " b") == "a" * 63


# -- jwt


@pytest.mark.parametrize("workspaces", [["engineering"], ["engineering", "support"], ["*"]])
def test_a_jwt_for_a_member_names_that_member(config: str, workspaces: list[str]) -> None:
    options = [option for slug in workspaces for option in ("--workspace", slug)]
    issued = run("jwt", "--config", config, *options, "--token", "alice")

    claims = jwt.decode(issued.stdout.strip(), SECRET, ["HS256"])
    assert (claims["workspaces"], claims["token"]) == (workspaces, "alice")


@pytest.mark.parametrize(
    ("workspace", "told"),
    [
        ("engineering", "engineering has no token 'nosuch'; it has alice, bob"),
        ("*", "* has no token 'nosuch'; it has alice, bob, dana"),
        ("empty", "empty has no token 'nosuch'; it has none"),
    ],
)
def test_a_jwt_for_nobody_is_refused_with_the_tokens_that_there_are(config: str, workspace: str, told: str) -> None:
    refused = run("jwt", "--config", config, "--workspace", workspace, "--token", "nosuch")

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == f"--token: {told}\n"


def test_a_jwt_for_a_member_of_another_workspace_is_refused(config: str) -> None:
    assert run("jwt", "--config", config, "--workspace", "support", "--token", "alice").exit_code == 2


# -- check


def test_a_secret_that_can_be_guessed_is_a_warning_and_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "callscope.yaml"
    path.write_text(f"api: {{jwt: {{secret: {'s' * 31}}}}}")
    checked = run("check", "--config", str(path))

    assert (checked.exit_code, checked.stdout) == (0, f"{path}: ok (0 workspaces, 0 servers, 0 tokens)\n")
    assert checked.stderr.startswith(f"{path}: api.jwt.secret: warning: is shorter than 32 bytes")
    assert checked.stderr.count("\n") == 1
    assert "sss" not in checked.stderr


@pytest.mark.parametrize("text", [f"api: {{jwt: {{secret: {'s' * 32}}}}}", "api: {jwt: {jwks_url: 'http://x'}}", "{}"])
def test_nothing_is_said_of_a_configuration_without_such_a_secret(tmp_path: Path, text: str) -> None:
    path = tmp_path / "callscope.yaml"
    path.write_text(text)

    assert run("check", "--config", str(path)).stderr == ""


def test_serve_warns_too(tmp_path: Path) -> None:
    path = tmp_path / "callscope.yaml"
    path.write_text("{api: {jwt: {secret: short}}, data_dir: /dev/null/no-folder}")
    serve = [sys.executable, "-m", "gateway", "serve", "--config", str(path)]  # a process: it sets its own umask
    refused = subprocess.run(serve, capture_output=True, text=True, timeout=60, check=False)

    assert refused.returncode == 2
    assert "api.jwt.secret: warning" in refused.stderr
    assert "/dev/null/no-folder" in refused.stderr


# -- the whole way


def test_what_token_prints_under_an_empty_list_is_found_by_check(tmp_path: Path) -> None:
    entry = next(
        line for line in run("token", "--workspace", "eng", "--name", "A").stdout.splitlines() if line[:2] == "- "
    )
    path = tmp_path / "callscope.yaml"
    path.write_text(yaml.safe_dump({"workspaces": {"eng": {"tokens": yaml.safe_load(entry)}}}))

    assert "1 tokens" in run("check", "--config", str(path)).stdout


# -- all of them


def test_the_page_of_the_command_line_has_every_command_and_every_option_of_the_views() -> None:
    page = (Path(__file__).parent.parent / "docs" / "cli.md").read_text()
    context = click.Context(commands)
    listed = {name: commands.get_command(context, name) for name in commands.list_commands(context)}

    assert set(re.findall(r"^\| `callscope (\w+)`", page, re.MULTILINE)) == set(listed)
    views = [view for name, view in listed.items() if view is not None and name in VIEWS]
    options = {option for view in views for parameter in view.params for option in parameter.opts}
    assert options <= set(re.findall(r"`(--[a-z-]+)`", page))
    assert set(re.findall(r"`(--[a-z-]+)`", page)) <= options | {"--help"}


def test_commands_that_ask_nobody_start_without_what_asks() -> None:
    script = "import sys, gateway.commands; print({'httpx', 'rich', 'duckdb'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "set()\n"

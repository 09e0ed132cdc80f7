"""The configuration file: what it means, and what is said of every kind of mistake in it."""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.config import PLANS, Config, HttpServer, StdioServer, changes, load
from gateway.errors import ConfigError

A, B = "a" * 64, "b" * 64


def write(folder: Path, text: str) -> Path:
    path = folder / "callscope.yaml"
    path.write_text(text)
    return path


def mistakes(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {})
    assert str(caught.value) == "\n".join(f"{path}: {mistake}" for mistake in caught.value.mistakes)
    return [str(mistake) for mistake in caught.value.mistakes]


# -- what is right

WHOLE = f"""
listen: "[::1]:8080"
observer: {{listen: 0.0.0.0:0}}
data_dir: state
api: {{jwt: {{secret: s, issuer: me}}}}
otlp: {{endpoint: "http://collector:4318"}}
plans: {{gold: {{retention_days: 3, calls_per_month: null}}, pro: {{calls_per_month: 1}}}}
workspaces:
  engineering:
    name: Engineering
    plan: gold
    servers:
      github: {{url: "https://mcp.example.com/mcp?x=1", headers: {{Authorization: Bearer x}}, timeout: 5}}
      files: {{command: npx, args: [-y, server], env: {{ROOT: /srv}}, cwd: work, enabled: false}}
    tokens:
      - {{id: alice, name: Alice, sha256: {A}, expires_at: 2026-12-01T10:00:00+02:00}}
      - {{id: ci, name: CI, kind: bot, sha256: {B}, expires_at: 2026-12-01}}
"""


def test_a_whole_file_is_read_with_paths_relative_to_its_folder(tmp_path: Path) -> None:
    config = load(write(tmp_path, WHOLE), {})
    assert (config.listen.host, config.listen.port, str(config.listen)) == ("::1", 8080, "[::1]:8080")
    assert str(config.observer.listen) == "0.0.0.0:0"
    assert config.data_dir == tmp_path / "state"
    workspace = config.workspaces["engineering"]
    github, files = workspace.servers["github"], workspace.servers["files"]
    assert isinstance(github, HttpServer)
    assert isinstance(files, StdioServer)
    assert (github.url, github.timeout, github.enabled) == ("https://mcp.example.com/mcp?x=1", 5.0, True)
    assert (files.command, files.args, files.enabled) == ("npx", ["-y", "server"], False)
    assert files.cwd == tmp_path / "work"
    alice, ci = workspace.tokens
    assert alice.expires_at == datetime(2026, 12, 1, 8, 0, tzinfo=UTC)
    assert ci.expires_at == datetime(2026, 12, 1, 0, 0, tzinfo=UTC)


def test_an_empty_mapping_has_a_default_for_everything(tmp_path: Path) -> None:
    config = load(write(tmp_path, "{}"), {})
    assert str(config.listen) == "127.0.0.1:8080"
    assert str(config.observer.listen) == "127.0.0.1:9464"
    assert config.data_dir == tmp_path / "data"
    assert config.workspaces == {}


def test_absolute_paths_stay(tmp_path: Path) -> None:
    config = load(write(tmp_path, "data_dir: /var/lib/callscope"), {})
    assert config.data_dir == Path("/var/lib/callscope")


def test_the_files_own_plans_go_before_the_defaults(tmp_path: Path) -> None:
    config = load(write(tmp_path, WHOLE + "  sales: {plan: pro}\n  free: {}\n"), {})
    assert config.plan_of(config.workspaces["engineering"]).retention_days == 3
    assert config.plan_of(config.workspaces["engineering"]).calls_per_month is None
    assert config.plan_of(config.workspaces["sales"]).calls_per_month == 1
    assert config.plan_of(config.workspaces["free"]) == PLANS["free"]


@pytest.mark.parametrize(
    ("workspace", "token", "holds"),
    [
        ("", "", "120/minute"),
        ("rate_limit: 10/second,", "", "10/second"),
        ("rate_limit: 10/second,", ", rate_limit: 1/second", "1/second"),
        ("rate_limit: 10/second,", ", rate_limit: null", None),
        ("rate_limit: null,", "", None),
        ("rate_limit: null,", ", rate_limit: 5/minute", "5/minute"),
    ],
)
def test_a_tokens_own_rate_limit_goes_before_the_workspaces(
    tmp_path: Path, workspace: str, token: str, holds: str | None
) -> None:
    text = f"workspaces: {{eng: {{{workspace} tokens: [{{id: a, name: A, sha256: {A}{token}}}]}}}}"
    eng = load(write(tmp_path, text), {}).workspaces["eng"]
    assert eng.rate_of(eng.tokens[0]) == holds


def test_nothing_can_be_changed_after_loading_and_no_secret_is_shown(tmp_path: Path) -> None:
    config = load(write(tmp_path, WHOLE), {})
    with pytest.raises(ValueError, match="frozen"):
        setattr(config, "data_dir", Path("/"))  # noqa: B010 - a type checker would refuse it already
    shown = repr(config)
    assert "Bearer x" not in shown
    assert "/srv" not in shown
    assert A not in shown
    assert "secret" not in shown


# -- variables of the environment


def test_variables_are_put_in_everywhere_and_two_dollars_are_one(tmp_path: Path) -> None:
    text = """
    api: {jwt: {secret: "a${SECRET}b$$c$d$${SECRET}"}}
    journal: {segment_bytes: "${BYTES}"}
    workspaces: {eng: {servers: {files: {command: x, args: ["${SECRET}", "${EMPTY}"]}}}}
    """
    config = load(write(tmp_path, text), {"SECRET": "$${s}", "BYTES": "8192", "EMPTY": ""})
    assert config.api is not None
    assert config.api.jwt.secret == "a$${s}b$c$d${SECRET}"
    assert config.journal.segment_bytes == 8192
    files = config.workspaces["eng"].servers["files"]
    assert isinstance(files, StdioServer)
    assert files.args == ["$${s}", ""]


def test_every_variable_that_is_not_set_is_named_with_its_place(tmp_path: Path) -> None:
    text = "data_dir: ${DIR}\nworkspaces: {eng: {servers: {gh: {command: x, args: [a, '${ARG}']}}}}"
    assert mistakes(tmp_path, text) == [
        "data_dir: the environment variable DIR is not set: set it, or write the value itself",
        "workspaces.eng.servers.gh.args[1]: the environment variable ARG is not set: set it, or write the value itself",
    ]


def test_without_an_environment_the_processs_own_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLSCOPE_TEST_DIR", "/elsewhere")
    assert load(write(tmp_path, "data_dir: ${CALLSCOPE_TEST_DIR}")).data_dir == Path("/elsewhere")


# -- mistakes


def server(text: str) -> str:
    return f"workspaces: {{eng: {{servers: {{gh: {text}}}}}}}"


def tokens(*texts: str) -> str:
    return f"workspaces: {{eng: {{tokens: [{', '.join(f'{{{text}}}' for text in texts)}]}}}}"


NO_SLUG = (
    "is not a slug: use letters and digits, joined by single '-' or '_', at most 64 characters "
    "('__' separates the server from the tool)"
)
NO_SETTING = "is not a setting: docs/configuration.md lists all that exist"
NO_ADDRESS = "is not an address: write host:port, for example 127.0.0.1:8080"
NO_RATE = "is not a rate: write for example '120/minute' or '10/second', or null for no limit"
ONE_OF = "a server has either 'url' (Streamable HTTP) or 'command' (stdio)"
PLAN_NAMES = "business, enterprise, free, pro, starter"
MISTAKES = {
    "an unknown section": ("metrix: {}", f"metrix: {NO_SETTING}"),
    "an unknown key of a server": (
        server("{url: 'http://x', tiemout: 1}"),
        f"workspaces.eng.servers.gh.tiemout: {NO_SETTING}",
    ),
    "a command's key at a URL": (
        server("{url: 'http://x', args: []}"),
        f"workspaces.eng.servers.gh.args: {NO_SETTING}",
    ),
    "a server with both": (server("{url: 'http://x', command: y}"), f"workspaces.eng.servers.gh: {ONE_OF}"),
    "a server with neither": (server("{timeout: 5}"), f"workspaces.eng.servers.gh: {ONE_OF}"),
    "a server that is none": (server("7"), f"workspaces.eng.servers.gh: {ONE_OF}"),
    "a URL of another scheme": (
        server("{url: 'ftp://x'}"),
        "workspaces.eng.servers.gh.url: URL scheme should be 'http' or 'https'",
    ),
    "no URL": (
        server("{url: nope}"),
        "workspaces.eng.servers.gh.url: Input should be a valid URL, relative URL without a base",
    ),
    "an empty command": (
        server("{command: ''}"),
        "workspaces.eng.servers.gh.command: String should have at least 1 character",
    ),
    "no time at all": (
        server("{command: x, timeout: 0}"),
        "workspaces.eng.servers.gh.timeout: Input should be greater than 0",
    ),
    "a server and a workspace named as pydantic's tags": (
        "workspaces: {servers: {servers: {http: {url: 1}}}}",
        "workspaces.servers.servers.http.url: Input should be a valid string",
    ),
    "a workspace that is no slug": ("workspaces: {a__b: {}}", f"workspaces.a__b: {NO_SLUG}"),
    "a server that is no slug": (
        "workspaces: {eng: {servers: {'a b': {command: x}}}}",
        f"workspaces.eng.servers.a b: {NO_SLUG}",
    ),
    "a token that is no slug": (
        tokens(f"id: -a, name: A, sha256: {A}"),
        f"workspaces.eng.tokens[0].id: {NO_SLUG}",
    ),
    "a slug that is too long": (f"workspaces: {{{'x' * 65}: {{}}}}", f"workspaces.{'x' * 65}: {NO_SLUG}"),
    "a missing key": (tokens(f"id: a, sha256: {A}"), "workspaces.eng.tokens[0].name: is missing"),
    "no digest": (
        tokens("id: a, name: A, sha256: mwt_secret"),
        "workspaces.eng.tokens[0].sha256: is not a SHA-256: write the 64 hex digits that `callscope token` prints",
    ),
    "two tokens with one id": (
        tokens(f"id: a, name: A, sha256: {A}", f"id: a, name: B, sha256: {B}"),
        "workspaces.eng: two tokens have the id 'a': give each token of a workspace its own id",
    ),
    "two tokens with one secret": (
        tokens(f"id: a, name: A, sha256: {A}", f"id: b, name: B, sha256: {A}"),
        "workspaces.eng.tokens[1].sha256: is already used by the token eng/a: create a new one with `callscope token`",
    ),
    "no time of day": (
        tokens(f"id: a, name: A, sha256: {A}, expires_at: soon"),
        "workspaces.eng.tokens[0].expires_at: Input should be a valid datetime or date, input is too short",
    ),
    "another kind": (
        tokens(f"id: a, name: A, sha256: {A}, kind: robot"),
        "workspaces.eng.tokens[0].kind: Input should be 'member' or 'bot'",
    ),
    "an unknown plan": (
        "workspaces: {eng: {plan: gold}}",
        f"workspaces.eng.plan: 'gold' is not a plan: choose one of {PLAN_NAMES}",
    ),
    "no rate": ("workspaces: {eng: {rate_limit: fast}}", f"workspaces.eng.rate_limit: {NO_RATE}"),
    "two rates": ("workspaces: {eng: {rate_limit: 10/second;99/minute}}", f"workspaces.eng.rate_limit: {NO_RATE}"),
    "a rate of nothing": ("workspaces: {eng: {rate_limit: 0/second}}", f"workspaces.eng.rate_limit: {NO_RATE}"),
    "an address without a host": ("listen: ':8080'", f"listen: {NO_ADDRESS}"),
    "an address without a port": ("listen: localhost", f"listen: {NO_ADDRESS}"),
    "an address that is a number": ("observer: {listen: 9464}", f"observer.listen: {NO_ADDRESS}"),
    "a service's name for a port": ("listen: 'localhost:http'", f"listen: {NO_ADDRESS}"),
    "a port that there is not": (
        "listen: '127.0.0.1:65536'",
        "listen.port: Input should be less than or equal to 65535",
    ),
    "no key source": ("api: {jwt: {}}", "api.jwt: set exactly one of 'secret' and 'jwks_url'"),
    "two key sources": (
        "api: {jwt: {secret: s, jwks_url: 'http://x'}}",
        "api.jwt: set exactly one of 'secret' and 'jwks_url'",
    ),
    "one address twice": (
        "listen: 127.0.0.1:9000\nobserver: {listen: '127.0.0.1:9000'}",
        "observer.listen: uses the same port as 'listen' (127.0.0.1:9000): choose another one",
    ),
    "one port on every address": (
        "listen: 0.0.0.0:9464",
        "observer.listen: uses the same port as 'listen' (0.0.0.0:9464): choose another one",
    ),
    "the other's default": (
        "observer: {listen: 'localhost:8080'}",
        "observer.listen: uses the same port as 'listen' (127.0.0.1:8080): choose another one",
    ),
    "no regular expression": (
        "redaction: {patterns: [ok, '(']}",
        "redaction.patterns[1]: is not a regular expression: missing ), unterminated subpattern at position 0",
    ),
    "a choice that there is not": (
        "journal: {fsync: sometimes}",
        "journal.fsync: Input should be 'interval', 'always' or 'never'",
    ),
    "a plan that keeps nothing": (
        "plans: {gold: {retention_days: 0}}",
        "plans.gold.retention_days: Input should be greater than or equal to 1",
    ),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_told_with_its_path(tmp_path: Path, kind: str) -> None:
    text, mistake = MISTAKES[kind]
    assert mistakes(tmp_path, text) == [mistake]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = "listen: x\ndata: y\nworkspaces: {eng: {rate_limit: fast, servers: {gh: {}}}}"
    assert {mistake.partition(":")[0] for mistake in mistakes(tmp_path, text)} == {
        "listen",
        "data",
        "workspaces.eng.rate_limit",
        "workspaces.eng.servers.gh",
    }
    assert len(mistakes(tmp_path, "workspaces: {a: {plan: gold}, b: {plan: silver}}")) == 2


def test_no_mistake_hides_another(tmp_path: Path) -> None:
    text = f"""
    listen: 127.0.0.1:9464
    observer: {{port: 1}}
    api: {{jwt: {{secret: "${{SECRET}}", jwks_url: "http://x", isuer: me}}}}
    plans: {{gold: {{retention: 1}}}}
    workspaces:
      a:
        plan: "${{PLAN}}"
        tokens: [{{id: x, name: X, sha256: {A}}}, {{id: x, name: X, sha256: {B}, kin: bot}}]
      b: {{plan: silver, servers: {{gh: {{url: "${{URL}}", timeout: -1}}}}, tokens: [{{id: y, sha256: {A}}}]}}
      c: {{tokens: [{{id: "${{ID}}", name: A, sha256: "${{ID}}"}}, {{id: "${{ID}}", name: B, sha256: "${{ID}}"}}]}}
    """
    told = mistakes(tmp_path, text)
    unset = {told_.partition(":")[0] for told_ in told if "is not set" in told_}
    others = [told_ for told_ in told if "is not set" not in told_]
    assert unset == {
        "api.jwt.secret",
        "workspaces.a.plan",
        "workspaces.b.servers.gh.url",
        *(f"workspaces.c.tokens[{i}].{key}" for i in (0, 1) for key in ("id", "sha256")),
    }
    assert others == [
        f"observer.port: {NO_SETTING}",
        f"api.jwt.isuer: {NO_SETTING}",
        f"plans.gold.retention: {NO_SETTING}",
        f"workspaces.a.tokens[1].kin: {NO_SETTING}",
        "workspaces.b.servers.gh.timeout: Input should be greater than 0",
        "workspaces.b.tokens[0].name: is missing",
        "api.jwt: set exactly one of 'secret' and 'jwks_url'",
        "workspaces.a: two tokens have the id 'x': give each token of a workspace its own id",
        "workspaces.b.plan: 'silver' is not a plan: choose one of business, enterprise, free, gold, pro, starter",
        "workspaces.b.tokens[0].sha256: is already used by the token a/x: create a new one with `callscope token`",
        "observer.listen: uses the same port as 'listen' (127.0.0.1:9464): choose another one",
    ]


def test_two_free_ports_are_not_one_address(tmp_path: Path) -> None:
    config = load(write(tmp_path, "listen: 127.0.0.1:0\nobserver: {listen: '127.0.0.1:0'}"), {})
    assert config.listen == config.observer.listen


def test_a_value_that_is_refused_is_not_shown(tmp_path: Path) -> None:
    told = mistakes(tmp_path, tokens("id: a, name: A, sha256: mwt_a_real_secret", "id: b, name: [], sha256: mwt_x"))
    assert len(told) == 3
    assert not any("mwt_" in mistake for mistake in told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("workspaces: [a", "(top level): is not valid YAML: while parsing a flow sequence"),
        ("workspaces: {eng: {}, eng: {}}", "(top level): is not valid YAML: the key 'eng' appears twice"),
        ("listen: a:1\nlisten: b:2", "(top level): is not valid YAML: the key 'listen' appears twice"),
        ("? [a]\n: 1", "(top level): is not valid YAML: a key must be a string"),
        ("? {a: 1}\n: 1", "(top level): is not valid YAML: a key must be a string"),
        ("a: !!python/object:os.system {}", "(top level): is not valid YAML: could not determine a constructor"),
        ("a: &x [*x]", "(top level): is nested too deeply, or an alias contains itself"),
        ("", "(top level): must be a mapping of settings, for example 'workspaces: {}'"),
        ("- a", "(top level): must be a mapping of settings, for example 'workspaces: {}'"),
    ],
)
def test_what_is_no_yaml_mapping_is_told_as_that(tmp_path: Path, text: str, told: str) -> None:
    (mistake,) = mistakes(tmp_path, text)
    assert mistake.startswith(told)


def test_a_merged_mapping_may_override_what_it_merges(tmp_path: Path) -> None:
    text = "workspaces: {a: &base {plan: pro, name: A}, b: {<<: *base, name: B}}"
    config = load(write(tmp_path, text), {})
    assert (config.workspaces["b"].plan, config.workspaces["b"].name) == ("pro", "B")


def test_bytes_that_are_no_text_are_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "callscope.yaml"
    path.write_bytes(b"a: \xff\xfe\xfd")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load(path, {})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "nowhere.yaml", {})
    assert str(caught.value) == f"{tmp_path}/nowhere.yaml: (top level): cannot be read: No such file or directory"


# -- changes


def watch(path: Path) -> AsyncGenerator[Config | ConfigError]:
    seen = changes(path)
    assert isinstance(seen, AsyncGenerator)
    return seen


def replace(path: Path, text: str) -> None:
    """As editors and ConfigMaps do: a new file takes the old one's name."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


async def test_changes_are_the_new_configuration_or_why_it_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "listen: 127.0.0.1:1")
    async with aclosing(watch(path)) as seen, asyncio.timeout(60):

        async def next_one(text: str) -> Config | ConfigError:
            """The watch may not have begun when the file changes for the first time: it changes until it is seen."""
            waiting = asyncio.ensure_future(anext(seen))
            while not (await asyncio.wait([waiting], timeout=0.5))[0]:
                replace(path, text)
            return waiting.result()

        first = await next_one("listen: 127.0.0.1:2")
        assert isinstance(first, Config)
        assert first.listen.port == 2
        refused = await next_one("listen: nowhere")
        assert isinstance(refused, ConfigError)
        assert refused.mistakes[0].path == "listen"
        again = await next_one("listen: 127.0.0.1:3")
        assert isinstance(again, Config)
        assert again.listen.port == 3


async def test_a_file_that_is_touched_or_rewritten_as_it_was_is_no_change(tmp_path: Path) -> None:
    path = write(tmp_path, "listen: 127.0.0.1:1")
    async with aclosing(watch(path)) as seen, asyncio.timeout(60):
        waiting = asyncio.ensure_future(anext(seen))
        while not (await asyncio.wait([waiting], timeout=0.5))[0]:
            os.utime(path)
            replace(path, "listen: 127.0.0.1:1")
            (tmp_path / "another").write_text("x")
            await asyncio.wait([waiting], timeout=0.5)
            assert not waiting.done()
            replace(path, "listen: 127.0.0.1:2")
        first = waiting.result()
        assert isinstance(first, Config)
        assert first.listen.port == 2


async def test_a_file_that_vanishes_is_told_once_and_holds_again_when_it_is_back(tmp_path: Path) -> None:
    path = write(tmp_path, "listen: 127.0.0.1:1")
    async with aclosing(watch(path)) as seen, asyncio.timeout(60):
        waiting = asyncio.ensure_future(anext(seen))
        while not (await asyncio.wait([waiting], timeout=0.5))[0]:  # the watch may begin late: see above
            (tmp_path / "another").write_text("x")
            path.unlink(missing_ok=True)
        gone = waiting.result()
        assert isinstance(gone, ConfigError)
        assert str(gone) == f"{path}: (top level): cannot be read: No such file or directory"

        waiting = asyncio.ensure_future(anext(seen))
        (tmp_path / "another").write_text("y")
        assert not (await asyncio.wait([waiting], timeout=0.5))[0]
        replace(path, "listen: 127.0.0.1:1")
        back = await waiting
        assert isinstance(back, Config)
        assert back.listen.port == 1


async def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "callscope.yaml"
    async with aclosing(watch(path)) as seen, asyncio.timeout(60):
        waiting = asyncio.ensure_future(anext(seen))
        while not (await asyncio.wait([waiting], timeout=0.5))[0]:
            replace(path, "listen: 127.0.0.1:1")
            (tmp_path / "another").write_text("x")
        assert isinstance(waiting.result(), Config)

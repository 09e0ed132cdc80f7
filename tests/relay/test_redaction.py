"""What the redactor removes from the text of failed calls, and that it takes time in proportion to the text."""

import json
import re
from re import _constants, _parser  # what the compiler itself reads a pattern with
from typing import Any

import pytest

from gateway.config import Config
from gateway.relay.redaction import REDACTED, Redactor, secrets_of

JWT = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
    ".eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIn0"
    ".SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
)
GITHUB = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
OPENAI = "sk-proj-T3BlbkFJabcdefghijklmnop0123456789"
ANTHROPIC = "sk-ant-api03-R2D2_abcdefghijklmnop-0123456789AA"
PEM_LINES = ["-----BEGIN RSA PRIVATE KEY-----", "MIIEpAIBAAKCAQEA75", "s3cr3tb0dy==", "-----END RSA PRIVATE KEY-----"]
PEM = "\n".join(PEM_LINES)
CONFIGURED = "a-configured-value/with=odd+characters"

TABLE = [
    pytest.param(f"token {JWT} expired", JWT, id="JWT"),
    pytest.param(f"token {JWT.rpartition('.')[0]}. is unsigned", JWT[:40], id="JWT without a signature"),
    pytest.param(f'{{"jwt":"{JWT}"}}', JWT, id="JWT in JSON"),
    pytest.param("Authorization: Bearer s0me.opaque-token", "s0me.opaque-token", id="Authorization, bearer"),
    pytest.param("authorization: Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA", id="Authorization, basic"),
    pytest.param("Proxy-Authorization=Token abc123", "abc123", id="Proxy-Authorization, another scheme"),
    pytest.param("Authorization: plain-key-without-scheme", "plain-key", id="Authorization without a scheme"),
    pytest.param('{"Authorization": "Bearer s0me token"}', "s0me", id="Authorization in JSON"),
    pytest.param(json.dumps(json.dumps({"authorization": "Key a\\b"})), "Key a", id="Authorization in JSON in JSON"),
    pytest.param("sent Bearer abcdefgh12 to the server", "abcdefgh12", id="bearer token in prose"),
    pytest.param(f"remote: {GITHUB}", GITHUB, id="GitHub, classic"),
    pytest.param(f"remote: gho_{GITHUB[4:]}", GITHUB[4:], id="GitHub, OAuth"),
    pytest.param("github_pat_11ABCDEFG0abcdefghij_KLMNOPQRST", "11ABCDEFG0", id="GitHub, fine-grained"),
    pytest.param("AKIAIOSFODNN7EXAMPLE is not allowed", "AKIAIOSFODNN7EXAMPLE", id="AWS, key id"),
    pytest.param("ASIAIOSFODNN7EXAMPLE has expired", "ASIAIOSFODNN7EXAMPLE", id="AWS, temporary key id"),
    pytest.param(f"aws_secret_access_key = {AWS_SECRET}", AWS_SECRET, id="AWS, secret key"),
    pytest.param(f'"SecretAccessKey": "{AWS_SECRET}"', AWS_SECRET, id="AWS, secret key in JSON"),
    pytest.param("https://s3/b?X-Amz-Signature=fe5f80f77d5fa3beca038a248ff0", "fe5f80f77d", id="AWS, presigned URL"),
    pytest.param("xoxb-123456789012-abcdefGHIJKL", "123456789012", id="Slack, bot"),
    pytest.param("xoxe.xoxp-1-Mi0yLTEyMzQ1Njc4OTA", "Mi0yLTEyMzQ1", id="Slack, rotating"),
    pytest.param("xapp-1-A0123456789-abcdef", "A0123456789", id="Slack, app"),
    pytest.param("https://hooks.slack.com/services/T000/B000/XXXXyyyy", "XXXXyyyy", id="Slack, webhook"),
    pytest.param(f"Incorrect API key provided: {OPENAI}", OPENAI, id="OpenAI"),
    pytest.param("sk-abcdefghijklmnopqrstuvwxyz012345", "abcdefghij", id="OpenAI, older"),
    pytest.param(f"x-api-key {ANTHROPIC}", ANTHROPIC, id="Anthropic"),
    pytest.param(f"key:\n{PEM}\nend", "s3cr3tb0dy", id="PEM"),
    pytest.param(json.dumps(PEM), "s3cr3tb0dy", id="PEM in JSON"),
    pytest.param(PEM.replace("RSA", "OPENSSH"), "s3cr3tb0dy", id="PEM, OpenSSH"),
    pytest.param(
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\ns3cr3tb0dy\n-----END PGP PRIVATE KEY BLOCK-----",
        "s3cr3tb0dy",
        id="PEM, PGP",
    ),
    pytest.param("\n".join(PEM_LINES[:3]), "s3cr3tb0dy", id="PEM that is cut"),
    pytest.param("Cookie: sid=38afes7a8; theme=dark", "38afes7a8", id="Cookie"),
    pytest.param("Set-Cookie: sid=38afes7a8; Path=/; HttpOnly", "38afes7a8", id="Set-Cookie"),
    pytest.param('{"set-cookie": "sid=38afes7a8; Path=/"}', "38afes7a8", id="Set-Cookie in JSON"),
    pytest.param("postgresql://app:p4ss.w0rd@db:5432/x refused", "p4ss.w0rd", id="URL password"),
    pytest.param('"redis://:p4ss.w0rd@cache/0"', "p4ss.w0rd", id="URL password without a user"),
    pytest.param("https://x/mcp?api_key=k3y-in-a-query&a=1", "k3y-in-a-query", id="URL query"),
    pytest.param("password='correct horse'", "correct horse", id="password"),
    pytest.param('{"client_secret":"s3cr3t \\"quoted\\" more"}', "more", id="secret in JSON, with quotes"),
    pytest.param("request 4711-internal failed", "4711-internal", id="pattern of the configuration"),
    pytest.param(f"no such key: {CONFIGURED}", CONFIGURED, id="value of the configuration"),
    pytest.param("key=a-configured-value%2Fwith%3Dodd%2Bcharacters", "a-configured-value", id="the same in a URL"),
]
SPLIT = [
    pytest.param('"password":\n    "correct horse"', "correct horse", id="behind its name"),
    pytest.param("Authorization: Bearer\r\n s0me.opaque-token", "s0me.opaque-token", id="behind its scheme"),
    pytest.param(f"{JWT[:80]}\n{JWT[80:]}", JWT[80:], id="JWT"),
    pytest.param(f"{JWT[:30]}\n  {JWT[30:]}", JWT[30:60], id="JWT in its first part"),
    pytest.param(f"{GITHUB[:12]}\n{GITHUB[12:]}", GITHUB[12:], id="GitHub"),
    pytest.param(f"{GITHUB[:30]}\r\n{GITHUB[30:]}", GITHUB[30:], id="GitHub, near its end"),
    pytest.param(f"{ANTHROPIC[:20]}\n\t{ANTHROPIC[20:]}", ANTHROPIC[20:], id="Anthropic"),
    pytest.param("Bearer abcdefgh\nijklmnop12345", "ijklmnop12345", id="bearer token"),
    pytest.param(f"{CONFIGURED[:10]}\n    {CONFIGURED[10:]}", CONFIGURED[10:], id="value of the configuration"),
]


def redactor(**options: Any) -> Redactor:
    return Redactor([r"\d+-internal"], [CONFIGURED], **options)


@pytest.mark.parametrize(("text", "secret"), TABLE)
def test_a_secret_is_removed(text: str, secret: str) -> None:
    redacted = redactor().text(text)
    assert secret not in redacted
    assert REDACTED in redacted


@pytest.mark.parametrize(("text", "secret"), TABLE)
def test_a_secret_is_removed_from_the_middle_of_a_text_in_json(text: str, secret: str) -> None:
    """Where a line break is a backslash and a letter, right before the secret."""
    redacted = redactor().text(json.dumps({"content": f"it failed:\n{text}\nand that is all"}))
    assert json.dumps(secret)[1:-1] not in redacted
    assert "it failed" in redacted


@pytest.mark.parametrize(("text", "secret"), SPLIT)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_secret_that_is_split_over_two_lines_is_removed(text: str, secret: str, *, as_json: bool) -> None:
    redacted = redactor().text(json.dumps(text) if as_json else text)
    assert secret not in redacted
    assert REDACTED in redacted


@pytest.mark.parametrize(
    "text",
    [
        "no such file: /srv/data/report-2026-11.csv",
        "basic usage\ncall it with a path",
        "the token has expired: ask for a new one",
        "expected ':' after key at line 3",
        "https://example.com:8443/path?page=2",
        "sk-short and ghp_short",
        '{"error": "disk full", "code": -32000, "data": {"tokens": 17}}',
        "see https://user@example.com/",
    ],
)
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    assert redactor().text(text) == text


def test_the_name_of_a_secret_stays() -> None:
    assert redactor().text('{"api_key": "hunter22", "path": "/x"}') == '{"api_key": "[redacted]", "path": "/x"}'
    assert redactor().text("https://user:hunter22@host/x") == "https://user:[redacted]@host/x"


def test_a_secret_that_the_cut_goes_through_is_not_in_what_is_left() -> None:
    """Of a long text four times `max_bytes` are read; what is redacted before makes room for what stands at the cut."""
    for shown in range(4, len(GITHUB)):
        before = " " + "x" * 900 + " "
        filler = "y" * (4000 - shown - len('password=""') - len(before))
        redacted = redactor(max_bytes=1000).text(f'password="{filler}"{before}{GITHUB}' + "z" * 1000)
        assert GITHUB[:4] not in redacted
        assert redacted.startswith('password="[redacted]" xxx')


def test_what_is_no_text_and_what_no_ledger_can_store_is_replaced() -> None:
    assert redactor().text(b"a\xff\0b") == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b"


def test_the_configurations_own_secrets_are_headers_environments_and_keys_in_urls() -> None:
    server = {
        "url": "https://user:url-password@host/a-path-segment-that-is-a-key/mcp?key=query-value",
        "headers": {"Authorization": "Bearer header-value", "X-Short": "short"},
    }
    process = {"command": "run", "env": {"API_KEY": "environment-value"}}
    config = Config.model_validate({"workspaces": {"team": {"servers": {"one": server, "two": process}}}})
    assert secrets_of(config) == {
        "url-password",
        "a-path-segment-that-is-a-key",
        "query-value",
        "Bearer header-value",
        "header-value",
        "environment-value",
    }


# -- linear time


def unbounded_inside_unbounded(pattern: Any, *, inside: bool = False) -> bool:
    """Whether an unbounded repetition holds another one: what makes backtracking take more than linear time."""
    for operator, argument in pattern:
        nested = inside
        if operator in (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT):
            unbounded = argument[1] is _constants.MAXREPEAT
            if unbounded and inside:
                return True
            nested = inside or unbounded
        parts = argument if isinstance(argument, (tuple, list)) else [argument]
        for part in parts:
            choices = part if isinstance(part, list) else [part]
            for choice in choices:
                if isinstance(choice, _parser.SubPattern) and unbounded_inside_unbounded(choice, inside=nested):
                    return True
    return False


def test_the_check_for_nested_repetitions_finds_them() -> None:
    for pattern in ("(a+)+", "(?:a*b)*", "(a|b+)*c", "(?=(x+)*)", "(?>a+)+"):
        assert unbounded_inside_unbounded(_parser.parse(pattern)), pattern
    for pattern in ("a+b*", "(?:a+){0,3}", "(a{1,5})+"):
        assert not unbounded_inside_unbounded(_parser.parse(pattern)), pattern


def test_no_pattern_of_the_redactor_nests_unbounded_repetitions() -> None:
    for pattern, _ in Redactor().substitutions:
        assert not unbounded_inside_unbounded(_parser.parse(pattern.pattern, pattern.flags & re.DOTALL))


@pytest.mark.parametrize("unit", ["a", "eyJ", "secret:\\", "ghp_a\n"])
def test_a_megabyte_of_what_looks_like_the_beginning_of_secrets_is_read_to_its_end(unit: str) -> None:
    text = unit * (2**20 // len(unit)) + f" {GITHUB}"
    redacted = redactor(max_bytes=2**22).text(text)
    assert GITHUB not in redacted

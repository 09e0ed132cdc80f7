"""Texts that no ledger has, U+0000 among them: they are refused as what is unknown is, whatever the database is."""

import base64
import json
import time
from typing import Any

import jwt
import pytest

from gateway.analytics.routes import VIEWS
from tests.analytics.service import CONFIG, NOW_NS, SECRET, Service, bearer
from tests.ledger.records import call

pytestmark = pytest.mark.usefixtures("both_ledgers")

PATHS = [path.replace("{call_id}", "a") for path in VIEWS]
IMPOSSIBLE = ["\0", "a\0b", "github\0"]


@pytest.mark.parametrize("value", IMPOSSIBLE)
@pytest.mark.parametrize("name", ["server", "tool", "token"])
def test_a_filter_is_400_with_what_there_is(name: str, value: str) -> None:
    there = {"server": "github", "tool": "merge", "token": "alice"}
    with Service([call(call_id="a", timestamp_ns=NOW_NS - 1)], catalog=lambda _: [("github", "merge")]) as service:
        for path in [*PATHS, "/export"]:
            required = {"/groups": {"by": "tool"}, "/export": {"format": "csv"}}.get(path, {})
            response = service.request(path, {**required, name: value})
            assert (response.status_code, response.json()["parameter"]) == (400, name), path
            assert there[name] in response.json()["allowed"]


def test_a_tool_is_400_also_while_no_catalog_is_known() -> None:
    with Service() as service:
        response = service.request("/tools", {"tool": "\0"})
    assert (response.status_code, response.json()["parameter"], response.json()["allowed"]) == (400, "tool", [])


def test_a_bearer_of_one_member_sees_no_other_member_in_an_error() -> None:
    with Service([call(token_id="bob", timestamp_ns=NOW_NS - 1)]) as service:
        response = service.request("/tools", {"token": "bob\0"}, bearer=bearer(token="alice"))
    assert (response.status_code, response.json()["allowed"]) == (400, ["alice"])


@pytest.mark.parametrize("call_id", ["%00", "a%00", "%ED%A0%80"])
def test_a_call_is_404(call_id: str) -> None:
    with Service([call(call_id="a", timestamp_ns=NOW_NS - 1)]) as service:
        response = service.request(f"/calls/{call_id}")
    assert response.status_code == 404
    assert set(response.json()) == {"error"}


@pytest.mark.parametrize("text", ["a\\u0000b", "\\u0000", "\\ud800"])
def test_a_cursor_is_400(text: str) -> None:
    cursor = base64.urlsafe_b64encode(f'[0,{NOW_NS},{NOW_NS - 1},"{text}"]'.encode()).decode().rstrip("=")
    with Service([call(timestamp_ns=NOW_NS - 1)]) as service:
        response = service.request("/calls", {"cursor": cursor})
    assert (response.status_code, response.json()["parameter"]) == (400, "cursor")


@pytest.mark.parametrize("name", ["a\0", "\0", "\ud800", "alice\udfff"])
@pytest.mark.parametrize("path", ["", "/tools", "/calls/a", "/nothing"])
def test_a_claim_is_401(name: str, path: str) -> None:
    claims: list[dict[str, Any]] = [{"token": name}, {"workspaces": [name]}, {"workspaces": ["engineering", name]}]
    with Service() as service:
        for claim in claims:
            response = service.request(path, bearer=bearer(**claim))
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.parametrize("key", [SECRET, b"another"], ids=["signed", "signed by another"])
def test_what_a_tokens_header_brings_into_the_refusal_can_be_written(key: bytes) -> None:
    head, claims = {"alg": "HS256", "crit": ["\ud800"]}, {"workspaces": ["*"]}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (head, claims)]
    signature = jwt.get_algorithm_by_name("HS256").sign(".".join(parts).encode(), key.ljust(64, b"\0"))
    with Service() as service:
        token = ".".join([*parts, base64.urlsafe_b64encode(signature).decode().rstrip("=")])
        response = service.request("/tools", bearer=token)
    assert response.status_code == 401
    assert set(response.json()) == {"error"}


def test_a_time_beyond_every_clock_is_one_that_never_comes() -> None:
    with Service(config=CONFIG) as service:
        assert service.request("/tools", bearer=bearer(exp=10**400)).status_code == 200
        assert service.request("/tools", bearer=bearer(exp=int(time.time()) - 60)).status_code == 401

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.analytics.routes import VIEWS
from tests.analytics.service import NOW_NS, Service
from tests.ledger.records import call

READS = [path.replace("{call_id}", "a") for path in VIEWS if path != "/groups"]

MISTAKES = [
    ([("nonsense", "1")], "nonsense"),
    ([("period", "fortnight")], "period"),
    ([("period", "")], "period"),
    ([("period", "0h")], "period"),
    ([("period", "01h")], "period"),
    ([("period", "1h"), ("period", "2h")], "period"),
    ([("period", "1h"), ("from", "0")], "period"),
    ([("period", "1h"), ("to", "0")], "period"),
    ([("from", "yesterday")], "from"),
    ([("from", "2026-11-01T00:00:00 01:00")], "from"),
    ([("from", "2026-11-01")], "from"),
    ([("from", "")], "from"),
    ([("from", "20"), ("to", "10")], "from"),
    ([("from", "20"), ("to", "20")], "from"),
    ([("from", "4000000000")], "from"),
    ([("to", "20")], "from"),
    ([("from", "1"), ("to", "99999999999")], "to"),
    ([("tz", "Mars/Olympus")], "tz"),
    ([("tz", "Europe")], "tz"),
    ([("tz", "../../etc/passwd")], "tz"),
    ([("tz", "\x00")], "tz"),
    ([("tz", "x" * 5000)], "tz"),
    ([("status", "failed")], "status"),
    ([("status", "")], "status"),
    ([("error_type", "oops")], "error_type"),
    ([("server", "githb")], "server"),
    ([("server", "")], "server"),
    ([("server", "github"), ("server", "githb")], "server"),
    ([("token", "mallory")], "token"),
    ([("limit", "0")], "limit"),
    ([("limit", "-1")], "limit"),
    ([("limit", "ten")], "limit"),
    ([("limit", "1e3")], "limit"),
    ([("limit", "99999999999999999999")], "limit"),
    ([("limit", "٣")], "limit"),
]


@pytest.mark.parametrize(("asked", "parameter"), MISTAKES, ids=str)
def test_a_mistake_is_400_and_named_on_every_path(asked: list[tuple[str, str]], parameter: str) -> None:
    with Service([call(call_id="a", timestamp_ns=NOW_NS - 1)]) as service:
        for path in READS:
            response = service.request(path, asked)
            assert response.status_code == 400, (path, response.text)
            body = response.json()
            assert set(body) == {"error", "parameter", "allowed"}
            assert body["parameter"] == parameter
            assert parameter in body["error"]
            assert isinstance(body["allowed"], list)


@pytest.mark.parametrize(
    ("path", "asked", "parameter", "allowed"),
    [
        ("/groups", {}, "by", "token"),
        ("/groups", {"by": "colour"}, "by", "server"),
        ("/groups", {"by": "token,token"}, "by", "token"),
        ("/groups", {"by": "token,"}, "by", "status"),
        ("/timeline", {"by": "token,server"}, "by", "none"),
        ("/timeline", {"by": "day"}, "by", "error_type"),
        ("/timeline", {"step": "0"}, "step", "1h"),
        ("/timeline", {"step": "060"}, "step", "1h"),
        ("/timeline", {"step": "soon"}, "step", "1h"),
        ("/timeline", {"step": "999999999w"}, "step", "1h"),
        ("/timeline", {"limit": "201"}, "limit", "1..200"),
        ("/calls", {"limit": "1001"}, "limit", "1..1000"),
        ("/overview", {"step": "1h"}, "step", "period"),
        ("/tools", {"status": "failure"}, "status", "error"),
        ("/tools", {"error_type": "timeout"}, "error_type", "upstream_timeout"),
        ("/tools", {"server": "githb"}, "server", "github"),
        ("/tools", {"token": "alic"}, "token", "alice"),
        ("/tools", {"tool": "mergee"}, "tool", "merge"),
        ("/tools", {"limit": "0"}, "limit", "1..10000"),
        ("/tools", {"tz": "CEST"}, "tz", "Europe/Berlin"),
    ],
)
def test_an_error_names_the_allowed_values(path: str, asked: dict[str, str], parameter: str, allowed: str) -> None:
    with Service(catalog=lambda _: [("github", "merge")]) as service:
        response = service.request(path, asked)
    assert response.status_code == 400
    assert response.json()["parameter"] == parameter
    assert allowed in response.json()["allowed"]


def test_a_filter_may_name_what_was_called_before_it_left_the_configuration() -> None:
    old = call(server_slug="gone", token_id="revoked", tool_name="forgotten", timestamp_ns=1)
    with Service([old], catalog=lambda _: [("github", "merge")]) as service:
        for name, value in (("server", "gone"), ("token", "revoked"), ("tool", "forgotten")):
            assert service.get("/overview", {name: value})["calls"]["range"] == 0


def test_what_another_workspace_has_is_not_known_here() -> None:
    with Service([call(workspace_id="sales", server_slug="crm", token_id="carol", timestamp_ns=NOW_NS - 1)]) as service:
        for name, value in (("server", "crm"), ("token", "carol")):
            assert service.request("/overview", {name: value}).status_code == 400


def test_a_tool_that_was_never_called_is_no_mistake_while_no_catalog_is_known() -> None:
    with Service() as service:
        assert service.get("/overview", {"tool": "merge"})["calls"]["range"] == 0


names: Any = st.sampled_from([*VIEWS["/timeline"].parameters, "cursor", "x"])


@pytest.mark.slow
@given(st.sampled_from([*READS, "/groups"]), st.lists(st.tuples(names, st.text(max_size=12)), max_size=4))
@settings(max_examples=30, deadline=None)
def test_no_query_string_is_an_error_of_the_server(path: str, asked: list[tuple[str, str]]) -> None:
    with Service([call(call_id="a", timestamp_ns=NOW_NS - 1)]) as service:
        assert service.request(path, asked).status_code in ((200, 400, 404) if path == "/calls/a" else (200, 400))

"""The API's description against the API: generated requests, and every answer held against its schema."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from gateway.analytics import openapi
from gateway.analytics.authorization import Authorizer
from gateway.analytics.http_errors import ParameterError
from gateway.analytics.parameters import COMMON, MAX_STEP_S, Fields, parse_step
from gateway.analytics.periods import period_start
from gateway.analytics.routes import PREFIX, VIEWS
from gateway.analytics.views import encode_cursor
from gateway.calls import COLUMN_OF, ErrorType
from gateway.journal import Writer
from gateway.ledger.queries import PagePosition
from gateway.observer import live_stream
from gateway.observer.live_stream import LiveStream
from tests.analytics import reference_views
from tests.analytics.service import CONFIG, NOW_NS, Service, bearer
from tests.ledger.records import call

LIVE = live_stream.PATH.replace("workspace_id", "")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
    allow_header_conformance,
    ignored_auth,
]
CALLS = [
    call(
        timestamp_ns=NOW_NS - 1 - i * 10**13,
        call_id=f"call-{i}",
        token_id=["alice", "bob"][i % 2],
        status="error" if i % 4 == 0 else "success",
        error_type=ErrorType.UPSTREAM_TIMEOUT if i % 4 == 0 else None,
        client_name="claude" if i % 3 else None,
    )
    for i in range(60)
]


@pytest.fixture(scope="module", params=["duckdb", pytest.param("postgresql", marks=pytest.mark.backend)])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With a live stream that has something to replay, and ends with that."""
    url = None if request.param == "duckdb" else request.getfixturevalue("postgresql").database()
    journal = tmp_path_factory.mktemp("journal")
    writer = Writer(journal, "relay-0")
    for each in CALLS:
        writer.append(each)
    stop = asyncio.Event()
    stop.set()
    with Service(CALLS, ledger_url=url) as running:
        stream = LiveStream(journal, Authorizer(lambda: CONFIG), ledger=running.ledger, stop=stop)
        running.app.router.routes = [*stream.routes(), *running.app.router.routes]
        yield running
    writer.close()


@pytest.fixture(scope="module")
def document(service: Service) -> Any:
    return service.app_json(openapi.PATH)


@pytest.fixture(scope="module")
def described(service: Service) -> Any:
    return schemathesis.openapi.from_asgi(openapi.PATH, service.app)


CURSOR = encode_cursor(NOW_NS - 10**18, NOW_NS, PagePosition(CALLS[9].timestamp_ns, CALLS[9].call_id))
KNOWN: dict[str, Any] = {
    "tz": "Europe/Berlin", "server": ["github"], "tool": ["create_issue"], "token": ["alice"], "cursor": CURSOR,
}  # fmt: skip
"""What may stand where the description allows any text, of which nearly none that is made up would be taken."""
ODD = ["\0", "a\0b", "_unknown", "é🙂", "%00", "' or 1=1 --", "x" * 500]
"""Texts that the description allows too, and that are hard for one database or the other."""


def known(case: Any) -> None:
    """Let a request name what there is, no range that excludes another, and no place in the stream."""
    if "{call_id}" in case.path:
        case.path_parameters["call_id"] = "call-8"
    case.query |= {name: value for name, value in KNOWN.items() if name in case.query}
    case.headers.pop("Last-Event-ID", None)
    case.query |= {"step": "4w"} if "step" in case.query else {}  # which is enough for any range
    for name in ("from", "to") if "period" in case.query or "from" not in case.query else ():
        case.query.pop(name, None)


def odd(case: Any, name: str, text: str) -> None:
    """Let a request name one thing that there cannot be."""
    known(case)
    if "{call_id}" in case.path:
        case.path_parameters["call_id"] = text
    else:
        case.query[name] = [text]


CLAIMS: list[dict[str, Any] | None] = [
    {"workspaces": ["*"]},
    {"workspaces": ["engineering"], "token": "alice"},
    None,
]


@pytest.mark.slow
@pytest.mark.parametrize("claims", CLAIMS, ids=["all", "member", "nobody"])
@pytest.mark.parametrize(
    "path", [*(PREFIX + path for path in VIEWS), f"{PREFIX}/export", live_stream.PATH, openapi.PATH]
)
def test_every_answer_is_as_it_is_described(described: Any, path: str, claims: dict[str, Any] | None) -> None:
    """Requests are as the description makes them up, but for names: those are of this workspace, or odd, or made up.

    With made-up names alone every answer would be that there is no such workspace, and nothing would be tested.
    """
    statuses: dict[str, Counter[int]] = {"known": Counter(), "odd": Counter(), "made up": Counter()}

    @given(
        case=described[path]["GET"].as_strategy(),
        names=st.sampled_from(["known", "known", "odd", "made up"]),
        name=st.sampled_from(["server", "tool", "token"]),
        text=st.sampled_from(ODD),
    )
    @settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    def ask(case: Any, names: str, name: str, text: str) -> None:
        if path != openapi.PATH and names != "made up":
            case.path_parameters["workspace_id"] = "engineering"
            known(case) if names == "known" else odd(case, name, text)
        headers = {} if claims is None else {"Authorization": f"Bearer {bearer(**claims)}"}
        statuses[names][case.call_and_validate(headers=headers, checks=CHECKS).status_code] += 1

    ask()
    if claims is None:
        assert set().union(*statuses.values()) == {200 if path == openapi.PATH else 401}
    else:
        assert statuses["known"][200] > 0, statuses


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("", {}),
        *((f"/{name}", {}) for name in ("overview", "tools", "members", "servers", "usage", "timeline", "calls")),
        ("/groups", {"by": "token,server,tool,status,error_type"}),
        ("/timeline", {"by": "error_type", "step": "1d"}),
        ("/calls/call-8", {}),
        ("/calls/call-9", {}),
        ("/calls", {"limit": "5"}),
        ("/tools", {"server": "nowhere"}),
        ("/calls/none", {}),
    ],
)
def test_an_answer_with_calls_in_it_is_of_its_schema(
    service: Service, document: Any, path: str, asked: dict[str, str]
) -> None:
    key = PREFIX + path.replace("/call-8", "/{call_id}").replace("/call-9", "/{call_id}").replace("/none", "/{call_id}")
    response = service.request(path, {"period": "30d", **asked} if not path.startswith("/calls/") else asked)
    described = document["paths"][key]["get"]["responses"][str(response.status_code)]
    if "$ref" in described:
        described = document["components"]["responses"][described["$ref"].rpartition("/")[2]]
    shape = {**described["content"]["application/json"]["schema"], "components": document["components"]}
    jsonschema_rs.Draft202012Validator(shape, validate_formats=True).validate(response.json())


def test_what_is_exported_and_streamed_is_of_its_schema(service: Service, document: Any) -> None:
    asked = {"format": "jsonl", "period": "30d"}
    exported = [json.loads(line) for line in service.request("/export", asked).text.splitlines()]
    stream = service.request("", {"last": "1000"}, prefix=LIVE)
    streamed = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: ")]

    assert len(exported) == len(streamed) == len(CALLS)
    for name, rows in (("ExportedCall", exported), ("CallSummary", streamed)):
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
        for row in rows:
            validator.validate(row)


def test_every_path_and_every_parameter_is_described(document: Any) -> None:
    taken = {
        **{PREFIX + path: view.parameters for path, view in VIEWS.items()},
        f"{PREFIX}/export": (*COMMON, "format"),
        live_stream.PATH: (*COLUMN_OF, "last"),
        openapi.PATH: (),
    }
    assert set(document["paths"]) == set(taken)
    for path, parameters in taken.items():
        described = document["paths"][path]["get"].get("parameters", ())
        assert [one["name"] for one in described if one["in"] == "query"] == list(parameters)
        assert [one["name"] for one in described if one["in"] == "path"] == re.findall(r"{(\w+)}", path)


def is_step(text: str) -> bool:
    """Whether it is taken as one, or is refused for being longer than a year."""
    seconds = {"": 1, "s": 1, **reference_views.UNIT}
    try:
        parse_step(Fields([("step", text)], ["step"]))
    except ParameterError:
        number = text.rstrip("smhdw")
        return number.isdecimal() and number[0] != "0" and int(number) * seconds[text.removeprefix(number)] > MAX_STEP_S
    return True


@pytest.mark.slow
@given(st.data())
@settings(max_examples=200)
def test_a_length_of_time_is_taken_if_and_only_if_the_description_lets_it_through(data: st.DataObject) -> None:
    paths = openapi.document({"/timeline": VIEWS["/timeline"]})["paths"]
    schemas = {one["name"]: one["schema"] for one in paths[f"{PREFIX}/timeline"]["get"]["parameters"]}
    texts = st.from_regex(r"[0-9]{0,9}[smhdw]?", fullmatch=True) | st.text(max_size=5)
    for name, is_taken in (("period", lambda text: period_start(text, NOW_NS, UTC) is not None), ("step", is_step)):
        pattern = schemas[name]["pattern"]
        assert is_taken(data.draw(st.from_regex(pattern, fullmatch=True)))
        text = data.draw(texts)
        assert is_taken(text) == bool(re.fullmatch(pattern, text)), (name, text)


def test_the_description_is_one_that_openapi_allows(document: Any) -> None:
    OPENAPI_31_VALIDATOR.validate(document)
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    references = set(re.findall(r'"#/components/(\w+)/(\w+)"', json.dumps(document)))
    assert references <= {(kind, name) for kind, named in document["components"].items() for name in named}


@pytest.mark.parametrize("path", [PREFIX, f"{PREFIX}/export", f"{PREFIX}/calls/call-1", live_stream.PATH, openapi.PATH])
def test_other_methods_and_other_types_are_refused_as_described(service: Service, document: Any, path: str) -> None:
    key = path.replace("call-1", "{call_id}")
    asked = {"format": "csv"} if path.endswith("export") else {}
    prefix = path.format(workspace_id="engineering")
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        response = service.request("", asked, method=method, prefix=prefix)
        assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")
        assert set(response.json()) == {"error"}
    response = service.request("", asked, headers={"Accept": "image/png"}, prefix=prefix)
    assert response.status_code == 406
    assert set(response.json()) == {"error"}
    assert {"405", "406"} <= set(document["paths"][key]["get"]["responses"])

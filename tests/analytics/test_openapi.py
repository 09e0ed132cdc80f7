"""The API's description against the API: generated requests, and every answer held against its schema."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
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
from gateway.analytics.auth import Authorizer
from gateway.analytics.parameters import COMMON
from gateway.analytics.routes import PREFIX, VIEWS
from gateway.calls import ErrorType
from gateway.journal import Writer
from gateway.ledger.queries import COLUMN_OF
from gateway.observer import live
from gateway.observer.live import LiveStream
from tests.analytics.service import CONFIG, NOW_NS, Service, bearer
from tests.ledger.records import call

LIVE = live.PATH.replace("workspace_id", "")
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


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With a live stream that has something to replay, and ends with that."""
    journal = tmp_path_factory.mktemp("journal")
    writer = Writer(journal, "relay-0")
    for each in CALLS:
        writer.append(each)
    stop = asyncio.Event()
    stop.set()
    with Service(CALLS) as running:
        stream = LiveStream(journal, Authorizer(lambda: CONFIG), stop=stop)
        running.app.router.routes = [*stream.routes(), *running.app.router.routes]
        yield running
    writer.close()


@pytest.fixture(scope="module")
def document(service: Service) -> Any:
    return service.app_json(openapi.PATH)


@pytest.fixture(scope="module")
def described(service: Service) -> Any:
    return schemathesis.openapi.from_asgi(openapi.PATH, service.app)


CLAIMS: list[dict[str, Any] | None] = [
    {"workspaces": ["*"]},
    {"workspaces": ["engineering"], "token": "alice"},
    None,
]


@pytest.mark.parametrize("claims", CLAIMS, ids=["all", "member", "nobody"])
@pytest.mark.parametrize("path", [*(PREFIX + path for path in VIEWS), f"{PREFIX}/export", live.PATH, openapi.PATH])
def test_whatever_is_asked_the_answer_is_as_it_is_described(
    described: Any, path: str, claims: dict[str, Any] | None
) -> None:
    """Two of three requests name the workspace that has the calls, so that not all answers are refusals."""

    @given(case=described[path]["GET"].as_strategy())
    @settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    def ask(case: Any) -> None:
        if len(case.path_parameters.get("workspace_id", "")) % 3:
            case.path_parameters["workspace_id"] = "engineering"
        headers = {} if claims is None else {"Authorization": f"Bearer {bearer(**claims)}"}
        case.call_and_validate(headers=headers, checks=CHECKS)

    ask()


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
    for name, rows in (("exported_call", exported), ("call", streamed)):
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
        for row in rows:
            validator.validate(row)


def test_every_path_and_every_parameter_is_described(document: Any) -> None:
    taken = {
        **{PREFIX + path: view.parameters for path, view in VIEWS.items()},
        f"{PREFIX}/export": (*COMMON, "format"),
        live.PATH: (*COLUMN_OF, "last"),
        openapi.PATH: (),
    }
    assert set(document["paths"]) == set(taken)
    for path, parameters in taken.items():
        described = document["paths"][path]["get"].get("parameters", ())
        assert [one["name"] for one in described if one["in"] == "query"] == list(parameters)
        assert [one["name"] for one in described if one["in"] == "path"] == re.findall(r"{(\w+)}", path)


def test_the_description_is_one_that_openapi_allows(document: Any) -> None:
    OPENAPI_31_VALIDATOR.validate(document)
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    references = set(re.findall(r'"#/components/(\w+)/(\w+)"', json.dumps(document)))
    assert references <= {(kind, name) for kind, named in document["components"].items() for name in named}


@pytest.mark.parametrize("path", [PREFIX, f"{PREFIX}/export", f"{PREFIX}/calls/call-1", live.PATH, openapi.PATH])
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

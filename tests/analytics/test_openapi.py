"""The API's description against the API: generated requests, and every answer held against its schema."""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.analytics import openapi
from gateway.analytics.routes import PREFIX, VIEWS
from gateway.calls import ErrorType
from gateway.observer import live
from tests.analytics.service import NOW_NS, Service, bearer
from tests.ledger.records import call

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
CALLS = [
    call(
        timestamp_ns=NOW_NS - i * 10**13,
        call_id=f"call-{i}",
        token_id=["alice", "bob"][i % 2],
        status="error" if i % 4 == 0 else "success",
        error_type=ErrorType.UPSTREAM_TIMEOUT if i % 4 == 0 else None,
        client_name="claude" if i % 3 else None,
    )
    for i in range(60)
]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service(CALLS) as running:
        yield running


@pytest.fixture(scope="module")
def described(service: Service) -> Any:
    return schemathesis.openapi.from_asgi(openapi.PATH, service.app)


CLAIMS: list[dict[str, Any] | None] = [
    {"workspaces": ["*"]},
    {"workspaces": ["engineering"], "token": "alice"},
    None,
]


@pytest.mark.parametrize("claims", CLAIMS, ids=["all", "member", "nobody"])
@pytest.mark.parametrize("path", [*(PREFIX + path for path in VIEWS), f"{PREFIX}/export", openapi.PATH])
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
def test_an_answer_with_calls_in_it_is_of_its_schema(service: Service, path: str, asked: dict[str, str]) -> None:
    document = service.app_json(openapi.PATH)
    key = PREFIX + path.replace("/call-8", "/{call_id}").replace("/call-9", "/{call_id}").replace("/none", "/{call_id}")
    response = service.request(path, {"period": "30d", **asked} if not path.startswith("/calls/") else asked)
    described = document["paths"][key]["get"]["responses"][str(response.status_code)]
    if "$ref" in described:
        described = document["components"]["responses"][described["$ref"].rpartition("/")[2]]
    shape = {**described["content"]["application/json"]["schema"], "components": document["components"]}
    jsonschema_rs.Draft202012Validator(shape, validate_formats=True).validate(response.json())


def test_every_path_and_every_parameter_is_described(service: Service) -> None:
    document = service.app_json(openapi.PATH)
    paths = {PREFIX + path for path in VIEWS} | {f"{PREFIX}/export", live.PATH, openapi.PATH}
    assert set(document["paths"]) == paths
    for path, view in VIEWS.items():
        described = document["paths"][PREFIX + path]["get"]["parameters"]
        assert {one["name"] for one in described if one["in"] == "query"} == set(view.parameters)
    assert openapi.MAX_LAST == live.MAX_LAST

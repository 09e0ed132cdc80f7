"""The relay's door: who comes in, and what everyone else is told."""

from pathlib import Path

import pytest

from tests.http1.raw import modern as modern_server
from tests.http1.raw import raw
from tests.relay.rig import SECRETS, bearer, member, rig, tool_call


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        pytest.param({"token": None}, 401, "unauthorized", id="no token"),
        pytest.param({"token": "mwt_wrong"}, 401, "unauthorized", id="wrong token"),
        pytest.param({"token": None, "authorization": "Basic YTpi"}, 401, "unauthorized", id="another scheme"),
        pytest.param({"token": None, "authorization": "Bearer"}, 401, "unauthorized", id="no secret"),
        pytest.param({"token": None, "authorization": SECRETS["alice"]}, 401, "unauthorized", id="no scheme"),
        pytest.param({"token": None, "authorization": "Bearer \xe9"}, 401, "unauthorized", id="no ASCII"),
        pytest.param({"token": "gone"}, 401, "unauthorized", id="expired"),
        pytest.param({"token": "stranger"}, 403, "forbidden", id="another workspace's"),
        pytest.param({"path": "/ws/nowhere"}, 404, "unknown_workspace", id="unknown workspace"),
        pytest.param({"path": "/ws/nowhere", "token": None}, 401, "unauthorized", id="unknown workspace, no token"),
        pytest.param({"path": "/ws/team/more"}, 404, "unknown_workspace", id="below a workspace"),
        pytest.param({"path": "/ws/"}, 404, "unknown_workspace", id="no slug"),
        pytest.param({"path": "/ws"}, 404, "not_found", id="no workspace"),
        pytest.param({"path": "/"}, 404, "not_found", id="the root"),
        pytest.param({"path": "/metrics"}, 404, "not_found", id="another path"),
        pytest.param({"path": "/ws/%2e%2e/ws/team"}, 404, "unknown_workspace", id="a path that climbs"),
        pytest.param({"origin": "https://evil.example"}, 403, "forbidden_origin", id="a page elsewhere"),
        pytest.param({"origin": "null"}, 403, "forbidden_origin", id="a page from nowhere"),
        pytest.param({"origin": "http://localhost.evil.example"}, 403, "forbidden_origin", id="nearly this machine"),
        pytest.param({"origin": "http://evil.example:80"}, 403, "forbidden_origin", id="elsewhere with a port"),
        pytest.param({"origin": "http://[::2]"}, 403, "forbidden_origin", id="another address"),
        pytest.param({"origin": "https://app.example.evil"}, 403, "forbidden_origin", id="nearly a listed page"),
        pytest.param({"content_type": "text/plain"}, 415, "bad_request", id="a form without preflight"),
        pytest.param({"content_type": ""}, 415, "bad_request", id="no type"),
        pytest.param({"content_type": "application/jsonp"}, 415, "bad_request", id="nearly JSON"),
    ],
)
async def test_a_rejected_request_is_counted_and_not_recorded(
    tmp_path: Path, changes: dict[str, str], status: int, reason: str
) -> None:
    tokens = [member("alice"), member("gone", expires_at="2020-01-01T00:00:00Z")]
    async with (
        raw(modern_server()) as server,
        rig(
            tmp_path,
            {"files": server},
            workspace={"tokens": tokens},
            requests={"allowed_origins": ["https://app.example"]},
        ) as relay,
    ):
        response = await relay.post(tool_call(), **changes)

        assert response.status_code == status
        body = response.json()
        assert (body["jsonrpc"], body["id"], body["error"]["code"]) == ("2.0", None, status)
        assert len(body["error"]["message"]) > 10
        challenge = response.headers.get("www-authenticate")
        assert challenge == ('Bearer error="invalid_token"' if status == 401 else None)
        assert server.calls == []
    assert relay.recorded == []
    assert relay.rejected == {reason: 1}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="plain"),
        pytest.param({"path": "/ws/team/"}, id="a slash at the end"),
        pytest.param({"path": "/api/gateway/ws/team"}, id="the other path"),
        pytest.param({"path": "/api/gateway/ws/team/"}, id="the other path with a slash"),
        pytest.param({"path": "/ws/%74eam"}, id="an encoded path"),
        pytest.param({"path": "/ws/team?x=1"}, id="a query"),
        pytest.param({"content_type": "application/json; charset=utf-8"}, id="a charset"),
        pytest.param({"content_type": "Application/JSON ;x=y"}, id="a type in capitals"),
        pytest.param({"token": None, "authorization": f"bearer   {SECRETS['alice']} "}, id="a scheme in small letters"),
        pytest.param({"origin": "http://localhost:3000"}, id="a page on this machine"),
        pytest.param({"origin": "http://localhost"}, id="one without a port"),
        pytest.param({"origin": "http://127.0.0.1:8080"}, id="one by address"),
        pytest.param({"origin": "http://[::1]:8080"}, id="one by IPv6 address"),
        pytest.param({"origin": "https://app.example"}, id="a page that is listed"),
    ],
)
async def test_an_admitted_request_is_served(tmp_path: Path, changes: dict[str, str]) -> None:
    async with (
        raw(modern_server()) as server,
        rig(tmp_path, {"files": server}, requests={"allowed_origins": ["https://app.example"]}) as relay,
    ):
        assert (await relay.post(tool_call(), **changes)).status_code == 200
        assert len(server.calls) == 1
    assert relay.rejected == {}


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "OPTIONS", "HEAD", "PATCH", "TRACE"])
async def test_only_post_is_allowed(tmp_path: Path, method: str) -> None:
    async with rig(tmp_path) as relay:
        response = await relay.http.request(method, "/ws/team", headers=bearer("alice"))

        assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert relay.rejected == {"method_not_allowed": 1}


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_a_load_balancer_needs_no_token(tmp_path: Path, path: str) -> None:
    async with rig(tmp_path) as relay:
        response = await relay.http.get(path)

        assert (response.status_code, response.json()) == (200, {"status": "ok"})

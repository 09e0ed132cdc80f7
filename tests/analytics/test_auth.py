import base64
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway import config
from gateway.analytics.auth import issue
from gateway.analytics.refusals import RefusedError
from gateway.calls import ToolCall
from tests.analytics.service import CONFIG, JWT, NOW_NS, Service, bearer
from tests.ledger.records import call


def settings(**changes: Any) -> config.Config:
    return CONFIG.model_copy(update={"api": config.Api(jwt=config.Jwt(**changes))})


def status(token: str, *, workspace: str = "engineering", used: config.Config = CONFIG) -> int:
    with Service(config=used) as service:
        response = service.request("/overview", workspace=workspace, bearer=token)
    assert set(response.json()) == {"error"} or response.status_code == 200
    if response.status_code == 401:
        assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    return response.status_code


def test_a_token_for_the_workspace_is_let_in() -> None:
    assert status(bearer()) == 200


def test_a_token_for_all_workspaces_is_let_in() -> None:
    assert status(bearer(workspaces=["*"])) == 200


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("", "missing"),
        ("no.jwt.at-all", "nonsense"),
        ("\u00e9", "no ASCII"),
        (bearer(key=b"x" * 64), "signed with another secret"),
        (bearer()[:-4] + "AAAA", "a changed signature"),
        (bearer(exp=time.time() - 60), "expired"),
        (bearer(nbf=time.time() + 3600), "not valid yet"),
        (bearer(exp="soon"), "no time"),
        (bearer(workspaces="engineering"), "no list"),
        (bearer(workspaces=[1]), "no slugs"),
        (bearer(token=7), "no member"),
        (jwt.encode({"workspaces": ["*"]}, "", "none"), "unsigned"),
        (bearer(algorithm="HS512"), "another algorithm"),
    ],
    ids=lambda value: value if " " in value or len(value) < 12 else "",
)
def test_a_token_that_does_not_verify_is_401(token: str, why: str) -> None:
    assert status(token) == 401, why


def test_clocks_may_differ_by_a_little() -> None:
    assert status(bearer(exp=time.time() - 3)) == 200
    assert status(bearer(nbf=time.time() + 3)) == 200


def test_without_an_authorization_header_the_answer_says_what_to_send() -> None:
    with Service() as service:
        response = service.request("/overview", headers={"Authorization": "Basic YTpi"})
    assert response.status_code == 401
    assert "Bearer" in response.json()["error"]


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"iss": "us", "aud": "callscope"}, 200),
        ({"iss": "us", "aud": ["other", "callscope"]}, 200),
        ({"iss": "them", "aud": "callscope"}, 401),
        ({"iss": "us", "aud": "other"}, 401),
        ({"iss": "us"}, 401),
        ({"aud": "callscope"}, 401),
    ],
)
def test_issuer_and_audience_hold_where_they_are_configured(claims: dict[str, Any], expected: int) -> None:
    strict = settings(secret=JWT.secret, issuer="us", audience="callscope")
    assert status(bearer(**claims), used=strict) == expected


def test_an_audience_does_not_matter_where_none_is_configured() -> None:
    assert status(bearer(aud="anything", iss="anybody")) == 200


def test_another_workspace_is_403_whether_it_exists_or_not() -> None:
    assert status(bearer(), workspace="sales") == 403
    assert status(bearer(), workspace="nowhere") == 403
    assert status(bearer(workspaces=["nowhere"]), workspace="nowhere") == 403
    assert status(bearer(workspaces=[])) == 403


def test_an_unknown_workspace_is_404_for_a_token_that_may_see_all() -> None:
    assert status(bearer(workspaces=["*"]), workspace="nowhere") == 404


@pytest.mark.parametrize("authorization", [bearer(), ""])
def test_a_configuration_without_an_api_section_says_so_whatever_the_bearer(authorization: str) -> None:
    with Service(config=CONFIG.model_copy(update={"api": None})) as service:
        response = service.request("/overview", bearer=authorization)
    assert response.status_code == 503
    assert "www-authenticate" not in response.headers
    assert "no section 'api'" in response.json()["error"]
    assert "api.jwt.secret" in response.json()["error"]


def test_a_members_token_sees_that_members_calls_only() -> None:
    calls: list[ToolCall] = [
        call(token_id="alice", tool_name="hers", call_id="hers", timestamp_ns=NOW_NS - 1),
        call(token_id="bob", tool_name="his", call_id="his", server_slug="private", timestamp_ns=NOW_NS - 1),
    ]
    alice = bearer(token="alice")
    with Service(calls) as service:
        whole = service.get(bearer=alice)
        assert whole["overview"]["calls"] == {"range": 1, "today": 1, "week": 1, "month": 1}
        assert [t["tool_name"] for t in whole["tools"]] == ["hers"]
        assert [m["token_id"] for m in whole["members"]] == ["alice"]
        assert [s["server_slug"] for s in whole["servers"]] == ["github", "jira"]
        assert whole["usage"]["usage"]["mcp_proxy_calls"]["used"] == 1
        assert [c["call_id"] for c in service.get("/calls", bearer=alice)["calls"]] == ["hers"]
        assert service.request("/calls/hers", bearer=alice).status_code == 200
        assert service.request("/calls/his", bearer=alice).status_code == 404
        for parameter, value in (("token", "bob"), ("server", "private")):
            refused = service.request("/calls", {parameter: value}, bearer=alice)
            assert (refused.status_code, refused.json()["parameter"]) == (400, parameter)
            assert value not in refused.json()["allowed"]


def test_an_issued_token_opens_what_it_was_issued_for() -> None:
    strict = config.Jwt(secret="s", issuer="us", audience="callscope")
    used = CONFIG.model_copy(update={"api": config.Api(jwt=strict)})
    token = issue(strict, ["engineering"], 60, time.time(), "alice")
    assert status(token, used=used) == 200
    assert status(token, used=used, workspace="sales") == 403
    assert status(issue(strict, ["engineering"], 60, time.time() - 120), used=used) == 401


def test_tokens_of_a_key_set_cannot_be_issued_here() -> None:
    with pytest.raises(RefusedError, match=r"api\.jwt\.secret"):
        issue(config.Jwt(jwks_url="http://127.0.0.1/keys"), ["*"], 60, time.time())


@dataclass
class KeySet:
    """A local server of a key set."""

    keys: list[dict[str, Any]] = field(default_factory=list)
    body: bytes | None = None
    requests: int = 0
    url: str = ""


@pytest.fixture
def key_set() -> Iterator[KeySet]:
    served = KeySet()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests += 1
            body = json.dumps({"keys": served.keys}).encode() if served.body is None else served.body
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}/keys"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    server.shutdown()
    thread.join(10)
    server.server_close()


RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def public(key: Any, kid: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    described: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    return {**described, "kid": kid, "use": "sig"}


def test_a_key_set_verifies_rsa_and_elliptic_curve_tokens_and_is_fetched_once(key_set: KeySet) -> None:
    key_set.keys = [public(RSA_KEY, "r"), public(EC_KEY, "e")]
    with Service(config=settings(jwks_url=key_set.url)) as service:
        for _ in range(2):
            for key, algorithm, kid in ((RSA_KEY, "RS256", "r"), (EC_KEY, "ES256", "e")):
                token = bearer(key, algorithm, {"kid": kid})
                assert service.request("/overview", bearer=token).status_code == 200
    assert key_set.requests == 1


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (bearer(RSA_KEY, "RS256", {"kid": "unknown"}), "a key that is not in the set"),
        (bearer(RSA_KEY, "RS256"), "names no key"),
        (bearer(rsa.generate_private_key(65537, 2048), "RS256", {"kid": "r"}), "another key of that name"),
        (bearer(EC_KEY, "ES256", {"kid": "r"}), "another kind of key"),
        (bearer(RSA_KEY, "RS512", {"kid": "r"}), "another algorithm"),
        (bearer(RSA_KEY, "RS256", {"kid": "r"}, exp=time.time() - 60), "expired"),
        (jwt.encode({"workspaces": ["*"]}, "", "none", {"kid": "r"}), "unsigned"),
        (bearer(b"k" * 64, "HS256", {"kid": "o"}), "the secret of a symmetric key that was published"),
    ],
    ids=lambda value: value if " " in value else "",
)
def test_a_token_that_the_key_set_does_not_verify_is_401(key_set: KeySet, token: str, why: str) -> None:
    symmetric = base64.urlsafe_b64encode(b"k" * 64).decode().rstrip("=")
    key_set.keys = [public(RSA_KEY, "r"), {"kty": "oct", "k": symmetric, "kid": "o", "alg": "HS256"}]
    assert status(token, used=settings(jwks_url=key_set.url)) == 401, why


def test_a_public_key_is_no_shared_secret(key_set: KeySet) -> None:
    key_set.keys = [public(RSA_KEY, "r")]
    published = key_set.keys[0]["n"].encode()
    forged = bearer(published, "HS256", {"kid": "r"}, workspaces=["*"])
    assert status(forged, used=settings(jwks_url=key_set.url)) == 401


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"keys": []}'])
def test_a_key_set_that_is_none_lets_nobody_in(key_set: KeySet, body: bytes) -> None:
    key_set.body = body
    assert status(bearer(RSA_KEY, "RS256", {"kid": "r"}), used=settings(jwks_url=key_set.url)) in (401, 503)


def test_a_key_set_that_cannot_be_fetched_is_503_and_says_when_to_come_again() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        url = f"http://127.0.0.1:{closed.server_port}/keys"
    with Service(config=settings(jwks_url=url)) as service:
        response = service.request("/overview", bearer=bearer(RSA_KEY, "RS256", {"kid": "r"}))
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert "jwks_url" in response.json()["error"]

import base64
import hmac
import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway import config
from gateway.analytics.bearer import issue
from gateway.analytics.jwks import KeySet
from gateway.calls import ToolCall
from gateway.errors import CallscopeError
from tests.analytics.key_server import EC_KEY, RSA_KEY, KeyServer, key_server, nobodys_url, public
from tests.analytics.service import CONFIG, JWT, NOW_NS, Service, bearer
from tests.ledger.records import call


def settings(**changes: Any) -> config.Config:
    return CONFIG.model_copy(update={"api": config.ApiSettings(jwt=config.Jwt(**changes))})


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
        (bearer(exp=float("inf")), "an infinite time"),
        (bearer(iat=time.time() + 3600), "issued in the future"),
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
    used = CONFIG.model_copy(update={"api": config.ApiSettings(jwt=strict)})
    token = issue(strict, ["engineering"], 60, time.time(), "alice")
    assert status(token, used=used) == 200
    assert status(token, used=used, workspace="sales") == 403
    assert status(issue(strict, ["engineering"], 60, time.time() - 120), used=used) == 401


def test_tokens_of_a_key_set_cannot_be_issued_here() -> None:
    with pytest.raises(CallscopeError, match=r"api\.jwt\.secret"):
        issue(config.Jwt(jwks_url="http://127.0.0.1/keys"), ["*"], 60, time.time())


@pytest.fixture
def key_set() -> Iterator[KeyServer]:
    with key_server() as running:
        yield running


def test_a_key_set_verifies_rsa_and_elliptic_curve_tokens_and_is_fetched_once(key_set: KeyServer) -> None:
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
def test_a_token_that_the_key_set_does_not_verify_is_401(key_set: KeyServer, token: str, why: str) -> None:
    symmetric = base64.urlsafe_b64encode(b"k" * 64).decode().rstrip("=")
    key_set.keys = [public(RSA_KEY, "r"), {"kty": "oct", "k": symmetric, "kid": "o", "alg": "HS256"}]
    assert status(token, used=settings(jwks_url=key_set.url)) == 401, why


def forged(header: dict[str, Any], key: bytes) -> str:
    """A token that is signed by HMAC with whatever bytes; PyJWT itself refuses to make one with a public key."""
    claims = {"workspaces": ["*"], "exp": int(time.time()) + 600}
    signed = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, claims)
    )
    signature = base64.urlsafe_b64encode(hmac.digest(key, signed.encode(), "sha256")).decode().rstrip("=")
    return f"{signed}.{signature}"


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "none", "None", "hs256", ""])
def test_a_public_key_is_no_shared_secret(key_set: KeyServer, algorithm: str) -> None:
    key_set.keys = [public(RSA_KEY, "r")]
    encodings = (
        (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        (serialization.Encoding.PEM, serialization.PublicFormat.PKCS1),
        (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
    )
    published = [RSA_KEY.public_key().public_bytes(*how) for how in encodings]
    published += [key_set.keys[0]["n"].encode(), json.dumps(key_set.keys[0]).encode(), b""]
    with Service(config=settings(jwks_url=key_set.url)) as service:
        for key in published:
            for claimed in ({"alg": algorithm, "kid": "r"}, {"alg": algorithm, "kid": "r", "jwk": key_set.keys[0]}):
                assert service.request("/overview", bearer=forged(claimed, key)).status_code == 401


def test_a_token_brings_no_key_of_its_own(key_set: KeyServer) -> None:
    mine = rsa.generate_private_key(65537, 2048)
    key_set.keys = [public(RSA_KEY, "r")]
    with key_server() as strangers, Service(config=settings(jwks_url=key_set.url)) as service:
        strangers.keys = [public(mine, "r")]
        headers: list[dict[str, Any]] = [{"jwk": public(mine, "r")}, {"jku": strangers.url}, {"x5u": strangers.url}]
        for header in headers:
            token = bearer(mine, "RS256", {"kid": "r", **header}, workspaces=["*"])
            assert service.request("/overview", bearer=token).status_code == 401
    assert strangers.requests == 0


def test_where_a_secret_is_configured_a_key_pair_opens_nothing() -> None:
    for key, algorithm in ((RSA_KEY, "RS256"), (EC_KEY, "ES256")):
        assert status(bearer(key, algorithm, {"kid": "r"})) == 401


@pytest.mark.parametrize(("issuer", "audience", "expected"), [("us", "callscope", 200), ("them", "x", 401)])
def test_issuer_and_audience_hold_for_a_key_set_too(
    key_set: KeyServer, issuer: str, audience: str, expected: int
) -> None:
    key_set.keys = [public(EC_KEY, "e")]
    strict = settings(jwks_url=key_set.url, issuer=issuer, audience=audience)
    token = bearer(EC_KEY, "ES256", {"kid": "e"}, iss="us", aud="callscope")
    assert status(token, used=strict) == expected


def test_keys_rotate_while_the_service_runs(key_set: KeyServer) -> None:
    now = [0.0]
    cached = partial(KeySet, refresh_s=60.0, lifetime_s=300.0, cooldown_s=0.0, clock=lambda: now[0])
    key_set.keys = [public(RSA_KEY, "old")]
    old, new = bearer(RSA_KEY, "RS256", {"kid": "old"}), bearer(EC_KEY, "ES256", {"kid": "new"})

    def statuses(service: Service) -> list[int]:
        return [service.request("/overview", bearer=token).status_code for token in (old, new)]

    with Service(config=settings(jwks_url=key_set.url), key_set=cached) as service:
        assert statuses(service) == [200, 401]
        key_set.keys = [public(RSA_KEY, "old"), public(EC_KEY, "new")]
        assert statuses(service) == [200, 200]
        key_set.keys = [public(EC_KEY, "new")]
        now[0] += 60
        assert statuses(service) == [401, 200]
        key_set.status = 500
        assert statuses(service) == [503, 200]
        now[0] += 300
        assert statuses(service) == [503, 503]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"keys": []}'])
def test_an_answer_that_is_no_key_set_lets_nobody_in(key_set: KeyServer, body: bytes) -> None:
    key_set.body = body
    assert status(bearer(RSA_KEY, "RS256", {"kid": "r"}), used=settings(jwks_url=key_set.url)) in (401, 503)


def test_a_key_set_that_cannot_be_fetched_is_503_and_says_when_to_come_again() -> None:
    with Service(config=settings(jwks_url=nobodys_url())) as service:
        response = service.request("/overview", bearer=bearer(RSA_KEY, "RS256", {"kid": "r"}))
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert "jwks_url" in response.json()["error"]

"""TLS to an upstream: whom it trusts, and what it says when it does not."""

import ssl

import pytest
import trustme

from gateway.http1.pool import ConnectError
from tests.http1.client_rig import OK, ask, in_turn, pool_of
from tests.http1.raw import (
    Do,
    eventually,
    raw,
)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def serving(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


async def test_tls_works_and_its_connections_are_kept(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    tls = serving(authority, "127.0.0.1")
    async with raw(lambda _: [OK], tls=tls) as server, pool_of(server, tls=trusting) as pool:
        for _ in range(3):
            assert (await ask(pool)).body == b"fine"

        assert server.accepted == 1


async def test_a_kept_tls_connection_that_the_upstream_closed_costs_nothing(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    answers = in_turn([OK, Do.CLOSE], [OK])
    tls = serving(authority, "127.0.0.1")
    async with raw(lambda _: next(answers), tls=tls) as server, pool_of(server, tls=trusting) as pool:
        await ask(pool)
        assert await eventually(lambda: server.closed == 1)

        assert (await ask(pool)).body == b"fine"


async def test_a_certificate_for_another_name_is_refused_with_the_reason(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    tls = serving(authority, "elsewhere.example")
    async with raw(lambda _: [OK], tls=tls) as server, pool_of(server, tls=trusting, most=1) as pool:
        for _ in range(2):
            with pytest.raises(ConnectError, match=rf"TLS with 127.0.0.1:{server.port} failed: .*not valid for"):
                await ask(pool)

        assert server.requests == []


async def test_a_certificate_that_nobody_vouches_for_is_refused_with_the_reason(authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trustme.CA().configure_trust(context)
    tls = serving(authority, "127.0.0.1")
    async with raw(lambda _: [OK], tls=tls) as server, pool_of(server, tls=context) as pool:
        with pytest.raises(ConnectError, match=r"failed: (unable to get local issuer certificate|self.signed)"):
            await ask(pool)


async def test_a_port_that_does_not_speak_tls_is_said_to_be_the_reason(trusting: ssl.SSLContext) -> None:
    async with raw(lambda _: [OK], greet=[OK]) as server, pool_of(server, tls=trusting) as pool:
        with pytest.raises(ConnectError, match=rf"TLS with 127.0.0.1:{server.port} failed"):
            await ask(pool)


async def test_a_port_that_closes_in_the_middle_of_the_handshake_is_said_to_be_the_reason(
    trusting: ssl.SSLContext,
) -> None:
    async with raw(lambda _: [OK], greet=[Do.CLOSE]) as server, pool_of(server, tls=trusting) as pool:
        with pytest.raises(ConnectError, match=rf"127.0.0.1:{server.port}.*\w"):
            await ask(pool)

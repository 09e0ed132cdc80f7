"""What the supervisor says of an address that it cannot have."""

import socket

import pytest

from gateway.config import Address
from gateway.errors import StartError
from gateway.supervisor import bind


def refusal(host: str, port: int) -> str:
    with pytest.raises(StartError) as caught:
        bind(Address(host=host, port=port))
    return str(caught.value)


def test_a_port_that_is_taken_has_somebody_to_stop() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refusal("127.0.0.1", port) == (
            f"cannot listen on 127.0.0.1:{port}: Address already in use; stop what uses it, or choose another port"
        )


def test_an_address_of_another_machine_is_told_as_that() -> None:
    said = refusal("192.0.2.1", 8080)

    assert "Cannot assign requested address; choose an address of this machine" in said


def test_a_port_that_only_root_may_have_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)  # the tests may be run by root, whom nothing is denied

    assert "127.0.0.1:80: Permission denied; ports below 1024 need a privilege" in refusal("127.0.0.1", 80)


def test_a_name_that_nobody_knows_is_told_as_that() -> None:
    assert "nowhere.invalid:8080" in refusal("nowhere.invalid", 8080)
    assert "choose another address" in refusal("nowhere.invalid", 8080)

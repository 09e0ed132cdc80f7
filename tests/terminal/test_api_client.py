"""Which observer a command asks, and what it says when that is not to be had."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.analytics.bearer import issue
from gateway.config import Jwt
from gateway.terminal.api_client import connect
from tests.terminal.observer_process import SECRET, WORKSPACES, Observer, run
from tests.terminal.scripted_server import Answer, scripted


def written(folder: Path, **changes: Any) -> str:
    path = folder / "callscope.yaml"
    path.write_text(json.dumps({"api": {"jwt": {"secret": SECRET}}, "workspaces": WORKSPACES, **changes}))
    return str(path)


def bearer(*workspaces: str, secret: str = SECRET) -> str:
    return issue(Jwt(secret=secret), workspaces, 60, time.time())


def refused(*arguments: str, environ: dict[str, str] | None = None) -> str:
    """The one line of a command that ends with status 2 and prints nothing."""
    result = run(*arguments, environ=environ)
    assert (result.exit_code, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    return line


# -- what is asked


def test_a_configuration_says_where_the_observer_is_and_signs_a_token(observer: Observer) -> None:
    assert "engineering" in run("usage", "--config", str(observer.config)).stdout


def test_an_address_and_a_jwt_are_enough_and_the_jwt_names_the_workspace(observer: Observer) -> None:
    assert "engineering" in run("usage", "--url", f"{observer.url}/", "--jwt", bearer("engineering")).stdout


def test_the_environment_has_them_too(observer: Observer) -> None:
    environ = {"CALLSCOPE_URL": observer.url, "CALLSCOPE_JWT": f"{bearer('engineering')}\n"}

    assert "engineering" in run("usage", environ=environ).stdout


def test_a_configuration_that_is_named_goes_before_the_environment(observer: Observer) -> None:
    elsewhere = {"CALLSCOPE_URL": "http://127.0.0.1:1", "CALLSCOPE_JWT": bearer("sales")}

    assert run("usage", "--config", str(observer.config), environ=elsewhere).exit_code == 0


def test_an_address_that_is_named_goes_before_the_configuration(observer: Observer, tmp_path: Path) -> None:
    config = written(tmp_path, observer={"listen": "127.0.0.1:0"})

    assert run("usage", "--config", config, "--url", observer.url).exit_code == 0


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("0.0.0.0:9464", "http://127.0.0.1:9464"),
        ("[::]:9464", "http://[::1]:9464"),
        ("10.1.2.3:80", "http://10.1.2.3:80"),
    ],
)
def test_an_observer_that_listens_everywhere_is_asked_here(tmp_path: Path, listen: str, url: str) -> None:
    config = written(tmp_path, observer={"listen": listen})

    with connect(Path(config), None, None) as api:
        assert api.url == url


# -- what is missing


def test_without_an_address_it_says_what_gives_one() -> None:
    assert refused("usage") == (
        "--config: is missing: name the configuration of `callscope serve`, or give --url and --jwt "
        "(or set CALLSCOPE_URL and CALLSCOPE_JWT)"
    )


def test_without_a_key_it_says_what_prints_one(tmp_path: Path) -> None:
    config = written(tmp_path, api={"jwt": {"jwks_url": "http://127.0.0.1:1/keys"}})

    assert refused("usage", "--url", "http://x").startswith("--jwt: is missing: give one that `callscope jwt` prints")
    assert refused("usage", "--config", config).startswith(f"{config}: api.jwt.secret: is missing: ")


def test_what_is_no_url_and_what_is_no_jwt_is_said(observer: Observer) -> None:
    assert refused("usage", "--url", "nowhere", "--jwt", bearer("a")).startswith("--url: 'nowhere' is not a URL")
    assert refused("usage", "--url", observer.url, "--jwt", "mwt_ö").startswith("--jwt: is not a JSON Web Token")


def test_any_free_port_is_no_address(tmp_path: Path) -> None:
    config = written(tmp_path, observer={"listen": "127.0.0.1:0"})

    assert refused("usage", "--config", config).startswith(f"{config}: observer.listen: has port 0: give --url")


def test_of_several_workspaces_one_must_be_named(tmp_path: Path) -> None:
    config = written(tmp_path, workspaces={"sales": {}, **WORKSPACES})

    assert refused("tail", "--config", config) == (
        f"--workspace: is missing: {config} has engineering, sales; name one"
    )
    assert refused("top", "--config", config, "--workspace", "ops") == (
        f"--workspace: {config} has no workspace 'ops'; it has engineering, sales"
    )


def test_a_jwt_for_all_workspaces_does_not_say_which_there_are(observer: Observer) -> None:
    everything = bearer("*")

    assert refused("usage", "--url", observer.url, "--jwt", everything) == (
        "--workspace: is missing: the JWT names no workspace, so give its slug"
    )
    assert run("usage", "--url", observer.url, "--jwt", everything, "--workspace", "engineering").exit_code == 0


# -- what is refused


@pytest.mark.parametrize("command", [["usage"], ["top"], ["tail"], ["export", "--format", "csv"]])
def test_a_connection_refused_is_one_line(tmp_path: Path, command: list[str]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        address = "{}:{}".format(*nobody.getsockname())
        config = written(tmp_path, observer={"listen": address})

        assert refused(*command, "--config", config) == (
            f"http://{address}: cannot connect to the observer: Connection refused: check that `callscope serve` is "
            f"running and that this is its observer's address (observer.listen of {config})"
        )


def test_another_secret_than_the_observers_is_said(observer: Observer, tmp_path: Path) -> None:
    listen = {"listen": observer.url.removeprefix("http://")}
    config = written(tmp_path, observer=listen, api={"jwt": {"secret": "another secret, which is long enough too"}})

    assert refused("usage", "--config", config) == (
        f"{observer.url}: the token is not valid: Signature verification failed: "
        f"check that the observer runs with api.jwt of {config}"
    )


def test_a_jwt_that_is_refused_is_said(observer: Observer) -> None:
    expired = issue(Jwt(secret=SECRET), ["engineering"], -3600, time.time())

    assert refused("usage", "--url", observer.url, "--jwt", expired) == (
        f"{observer.url}: the token is not valid: Signature has expired: give another --jwt, printed by `callscope jwt`"
    )
    assert refused("usage", "--url", observer.url, "--jwt", bearer("a")) == (
        f"{observer.url}: this token does not name the workspace 'a'"
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["--period", "fortnight"],
            "--period: 'fortnight' is not a period: give a name, or a length like 12h (allowed: today, ",
        ),
        (["--period", "1h", "--from", "0"], "--period: excludes from and to: give one or the other (allowed: from)"),
        (["--to", "0"], "--from: is missing: to needs it (allowed: 2026-"),
        (["--server", "gitlab"], "--server: 'gitlab' is not known here (allowed: github, jira)"),
        (["--token", "mallory"], "--token: 'mallory' is not known here (allowed: alice)"),
        (["--tz", "Mars"], "--tz: 'Mars' is not an IANA time zone"),
    ],
)
def test_a_mistake_in_a_filter_is_told_of_the_option(observer: Observer, options: list[str], told: str) -> None:
    assert refused("top", "--config", str(observer.config), *options).startswith(told)


def test_more_names_than_help_are_counted() -> None:
    names = [f"server-{i}" for i in range(25)]
    body = json.dumps({"error": "server: 'x' is not known here", "parameter": "server", "allowed": names})
    with scripted(Answer(body.encode(), status=400)) as url:
        told = refused("usage", "--url", url, "--jwt", bearer("a"))

    assert told.endswith("server-19, and 5 more)")


def test_who_is_no_observer_is_told_from_one() -> None:
    with scripted(Answer(b"<html>Not found</html>", status=404)) as url:
        assert refused("usage", "--url", url, "--jwt", bearer("a")) == (
            f"{url}: answered 404, not as an observer does: use the observer's address, not the relay's"
        )
    with scripted(Answer(b'{"tier": 7}')) as url:
        assert refused("usage", "--url", url, "--jwt", bearer("a")).startswith(
            "the answer is not one of an observer of this version: "
        )


def test_what_an_observer_says_cannot_command_the_terminal() -> None:
    with scripted(Answer(json.dumps({"error": "no \x1b[2J\nway"}).encode(), status=403)) as url:
        assert refused("usage", "--url", url, "--jwt", bearer("a")) == f"{url}: no [2J way"

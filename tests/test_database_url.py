from pathlib import Path

import pytest

from gateway.config import load
from gateway.database_url import checked, shown
from gateway.errors import ConfigError

GOOD = [
    "postgresql://db/calls",
    "postgres://callscope@db:5432/calls",
    "postgresql://callscope:p%40ss%2Fw%3Ard@db:5432/calls?sslmode=verify-full",
    "postgresql://u:p@[::1]:5432/calls",
    "postgresql://u:p@one:5432,two:5433/calls?target_session_attrs=read-write",
    "postgresql:///calls?host=/var/run/postgresql",
]
BAD = {
    "another kind of database": "mysql://u:hidden@db/calls",
    "no database": "postgresql://u:hidden@db",
    "no database, but parameters": "postgresql://u:hidden@db/?sslmode=require",
    "no URL": "hidden",
    "an @ in the password": "postgresql://u:hid@den@db/calls",
    "a / in the password": "postgresql://u:hid/den@db/calls",
    "a / behind digits in the password": "postgresql://u:12/hidden@db/calls",
    "a # in the password": "postgresql://u:hid#den@db/calls",
    "a % in the password": "postgresql://u:hid%zzden@db/calls",
    "a space in the password": "postgresql://u:hid den@db/calls",
    "a port that is no number": "postgresql://u:p@db:hidden/calls",
}


def write(folder: Path, ledger: str) -> Path:
    path = folder / "callscope.yaml"
    path.write_text(f"ledger: '{ledger}'\nworkspaces: {{}}\n")
    return path


@pytest.mark.parametrize("url", GOOD)
def test_a_url_of_postgresql_is_taken_as_it_is(tmp_path: Path, url: str) -> None:
    assert checked(url) == url
    assert load(write(tmp_path, url), {}).ledger == url


@pytest.mark.parametrize("url", BAD.values(), ids=BAD)
def test_what_is_none_is_a_mistake_that_says_what_would_be_right_and_quotes_no_password(
    tmp_path: Path, url: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, url), {})
    [mistake] = caught.value.mistakes
    assert mistake.path == "ledger"
    assert "postgresql://user:password@host:5432/database" in mistake.problem
    assert "hid" not in str(caught.value)
    assert "den" not in str(caught.value)


def test_the_password_may_come_from_the_environment_and_is_not_shown_with_the_configuration(tmp_path: Path) -> None:
    config = load(write(tmp_path, "postgresql://u:${PASSWORD}@db/calls"), {"PASSWORD": "hidden"})
    assert config.ledger == "postgresql://u:hidden@db/calls"
    assert "hidden" not in repr(config)


def test_without_the_setting_the_ledger_is_the_embedded_one(tmp_path: Path) -> None:
    path = tmp_path / "callscope.yaml"
    path.write_text("workspaces: {}\n")
    assert load(path, {}).ledger is None


def test_a_url_is_shown_without_user_password_and_parameters() -> None:
    assert shown("postgresql://u:hidden@db:5432/calls?password=hidden") == "postgresql://db:5432/calls"
    assert shown("postgresql:///calls?host=/run&user=u") == "postgresql:///calls"

"""Which observer a command asks, with which token, and about which workspaces."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt as jose
from pydantic import TypeAdapter, ValidationError

from gateway.analytics import bearer as issuing
from gateway.config import Address, Config, Url, load
from gateway.errors import CallscopeError

TTL_S: Final = 60.0
"""Seconds for which a token is valid that is made for one answer: the observer looks at it when the request begins."""
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Who listens everywhere is here as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverConnection:
    """An observer's address, and the keys to it."""

    url: str
    """`http://host:port`, or with the path under which a proxy has it; no slash at the end."""
    address_of: str
    """Where the address was found, for people."""
    bearer: Callable[[str, float], str]
    """The JWT for a workspace; one that is made here is good for so many seconds."""
    advice: str
    """What to do when that is refused."""
    workspaces: tuple[str, ...]
    """Those that there are; empty if nothing here says."""
    named_by: str
    """What says so."""
    local: bool
    """Whether the address is one of this machine, to which no proxy leads."""

    def one(self, workspace: str | None) -> str:
        """The workspace that is meant.

        Raises:
            CallscopeError: there is none of that name, or none was named, and it is not the only one.
        """
        return self.several(() if workspace is None else (workspace,), most=1)[0]

    def several(self, workspaces: Sequence[str], *, most: int | None = None) -> Sequence[str]:
        """The workspaces that are meant: all if none is named.

        Raises:
            CallscopeError: there is none of a name, none was named and nothing says which there are, or too many are.
        """
        there = ", ".join(self.workspaces)
        for slug in workspaces:
            if self.workspaces and slug not in self.workspaces:
                raise CallscopeError(f"--workspace: {self.named_by} has no {slug!r}, but {there}")
        chosen = workspaces or self.workspaces
        if not chosen:
            raise CallscopeError(f"--workspace: is missing, and {self.named_by} names none: give its slug")
        if most is not None and len(chosen) > most:
            raise CallscopeError(f"--workspace: is missing: {self.named_by} has {there}, give one of them")
        return chosen


def connect(config_path: Path | None, url: str | None, jwt: str | None) -> ObserverConnection:
    """What a configuration says, or a URL and a JWT, which go before what it says.

    Raises:
        ConfigError: the configuration cannot be used.
        CallscopeError: the options are not enough, or not what they should be.
    """
    config = None if config_path is None else load(config_path)
    if config is None and url is None:
        raise CallscopeError(
            "--config: is missing: name the configuration that `callscope serve` has, or give --url and --jwt "
            "(or set CALLSCOPE_URL and CALLSCOPE_JWT)"
        )
    if config is None and jwt is None:
        raise CallscopeError("--jwt: is missing: `callscope jwt` prints one, where the configuration is")
    bearer, advice = _given(jwt) if jwt is not None else _signed(config_path, config)
    if config is not None:
        workspaces, named_by = tuple(sorted(config.workspaces)), str(config_path)
    else:
        workspaces, named_by = _claimed(jwt or ""), "the JWT"
    return ObserverConnection(
        url=_checked(url) if url is not None else _address(config_path, config),
        address_of="--url" if url is not None else f"observer.listen of {config_path}",
        bearer=bearer,
        advice=advice,
        workspaces=workspaces,
        named_by=named_by,
        local=url is None,
    )


def _given(jwt: str) -> tuple[Callable[[str, float], str], str]:
    jwt = jwt.strip()
    _claims(jwt)
    return lambda _workspace, _ttl_s: jwt, "give another --jwt: `callscope jwt` prints one, where the configuration is"


def _signed(path: Path | None, config: Config | None) -> tuple[Callable[[str, float], str], str]:
    settings = None if config is None or config.api is None else config.api.jwt
    if settings is None or settings.secret is None:
        raise CallscopeError(f"{path}: api.jwt.secret: is missing: only a shared secret can sign here, so give --jwt")

    def sign(workspace: str, ttl_s: float) -> str:
        return issuing.issue(settings, [workspace], ttl_s=ttl_s, now=time.time())

    return sign, f"is api.jwt of {path} what the observer was started with?"


def _claims(jwt: str) -> dict[str, Any]:
    """What the token says of itself; whether that is true is the observer's to decide."""
    try:
        return jose.decode(jwt, options={"verify_signature": False})
    except (jose.PyJWTError, ValueError) as error:
        raise CallscopeError("--jwt: is no JSON Web Token: `callscope jwt` prints one") from error


def _claimed(jwt: str) -> tuple[str, ...]:
    named = _claims(jwt.strip()).get("workspaces")
    slugs = [slug for slug in named if isinstance(slug, str)] if isinstance(named, list) else []
    return () if issuing.ALL_WORKSPACES in slugs else tuple(slugs)


def _checked(url: str) -> str:
    try:
        return TypeAdapter[str](Url).validate_python(url).rstrip("/")
    except ValidationError as error:
        raise CallscopeError(f"--url: {url!r} is no URL, for instance https://callscope.example.com:9464") from error


def _address(path: Path | None, config: Config | None) -> str:
    listen = Address(host="", port=0) if config is None else config.observer.listen
    if listen.port == 0:
        raise CallscopeError(f"{path}: observer.listen: is any free port: give the one that serve printed as --url")
    return f"http://{Address(host=_EVERYWHERE.get(listen.host, listen.host), port=listen.port)}"

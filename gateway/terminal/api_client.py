"""A client of the observer's API: which observer, with which JWT, and what its errors mean to a person."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import quote

import httpx
import jwt as pyjwt
import msgspec
from pydantic import TypeAdapter, ValidationError

from gateway.analytics import bearer
from gateway.analytics.models import ErrorBody
from gateway.config import Address, Config, Jwt, Url, load
from gateway.errors import CallscopeError
from gateway.terminal.formatting import one_line

Answer = TypeVar("Answer")
Parameters = Sequence[tuple[str, str]]
"""The names and values of a query string, in order; a name may be repeated."""

TIMEOUT_S: Final = 30.0
"""For an answer, which may be over a year of calls on a busy machine."""
CONNECT_TIMEOUT_S: Final = 10.0
TTL_S: Final = 60.0
"""Lifetime of a JWT that is made for one answer: the observer checks it when the request begins."""
MOST_NAMES: Final = 20
"""Allowed values that an error lists at most."""
_LOCAL: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where an observer that listens on all addresses can be reached from its own machine."""


class UnansweredError(CallscopeError):
    """There is no answer now; the same request may succeed later. `reason` says why in a few words."""

    def __init__(self, message: str, reason: str, retry_after_s: float = 0.0) -> None:
        self.reason = reason
        self.retry_after_s = retry_after_s
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiClient:
    """One observer's API."""

    url: str
    """`http://host:port`, with the path prefix of a proxy if there is one; no slash at the end."""
    url_source: str
    """Where the URL was found, for error messages."""
    bearer: Callable[[str, float], str]
    """The JWT for a workspace; a lifetime in seconds if it is signed here."""
    advice: str
    """What to do if the JWT is rejected."""
    workspaces: tuple[str, ...]
    """The known slugs; none if nothing names them."""
    workspaces_source: str
    http: httpx.Client
    timeout_s: float = TIMEOUT_S

    def one(self, workspace: str | None) -> str:
        """The workspace with this slug, or the only one if no slug is given.

        Raises:
            CallscopeError: there is no such workspace, or there are several and no slug was given.
        """
        chosen = self.several(() if workspace is None else (workspace,))
        if len(chosen) > 1:
            raise CallscopeError(f"--workspace: is missing: {self.workspaces_source} has {', '.join(chosen)}; name one")
        return chosen[0]

    def several(self, workspaces: Sequence[str]) -> Sequence[str]:
        """The workspaces with these slugs, or all if no slug is given.

        Raises:
            CallscopeError: there is no such workspace, or no slug was given and none is known.
        """
        for slug in workspaces:
            if self.workspaces and slug not in self.workspaces:
                known = ", ".join(self.workspaces)
                raise CallscopeError(f"--workspace: {self.workspaces_source} has no workspace {slug!r}; it has {known}")
        chosen = workspaces or self.workspaces
        if not chosen:
            raise CallscopeError(
                f"--workspace: is missing: {self.workspaces_source} names no workspace, so give its slug"
            )
        return chosen

    def get(self, workspace: str, path: str, answer: type[Answer], parameters: Parameters = ()) -> Answer:
        """The answer at a path below the workspace's.

        Raises:
            UnansweredError: there is no answer now.
            CallscopeError: the request is rejected, or the server is not an observer.
        """
        with self.stream(workspace, path, parameters) as response:
            body = response.read()
        return decode(body, answer)

    @contextlib.contextmanager
    def stream(
        self,
        workspace: str,
        path: str,
        parameters: Parameters = (),
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = None,
        ttl_s: float = TTL_S,
    ) -> Iterator[httpx.Response]:
        """A response whose body is still to be read; `timeout_s` is for each read, `ttl_s` for a JWT signed here.

        Raises:
            UnansweredError: there is no answer now, or it broke off while the body was read.
            CallscopeError: the request is rejected.
        """
        request = self.http.build_request(
            "GET",
            f"{self.url}/api/community/mcp/workspaces/{quote(workspace, safe='')}{path}",
            params=list(parameters),
            headers={"Authorization": f"Bearer {self.bearer(workspace, ttl_s)}", **(headers or {})},
            timeout=httpx.Timeout(timeout_s or self.timeout_s, connect=CONNECT_TIMEOUT_S),
        )
        try:
            with contextlib.closing(self.http.send(request, stream=True)) as response:
                if response.status_code != HTTPStatus.OK:
                    response.read()
                    self._reject(response)
                yield response
        except httpx.ConnectError as error:
            reason = str(error).partition("] ")[2] or str(error)
            raise UnansweredError(
                f"{self.url}: cannot connect to the observer: {reason}: check that `callscope serve` is running and "
                f"that this is its observer's address ({self.url_source})",
                reason,
            ) from error
        except httpx.TimeoutException as error:
            raise UnansweredError(f"{self.url}: the observer did not answer in time", "no answer") from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise UnansweredError(f"{self.url}: the connection broke: {reason}", reason) from error

    def _reject(self, response: httpx.Response) -> NoReturn:
        status = response.status_code
        try:
            body = decode(response.content, ErrorBody)
        except CallscopeError:  # a proxy whose observer does not run, or another server altogether
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise UnansweredError(f"{self.url}: answered {status} without a reason", f"status {status}") from None
            raise CallscopeError(
                f"{self.url}: answered {status}, not as an observer does: use the observer's address, not the relay's"
            ) from None
        problem = one_line(body.error)
        if status == HTTPStatus.BAD_REQUEST and body.parameter:
            raise CallscopeError(_option_error(body.parameter, problem, body.allowed or []))
        if status == HTTPStatus.UNAUTHORIZED:
            raise CallscopeError(f"{self.url}: {problem}: {self.advice}")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            retry_after = response.headers.get("Retry-After", "")
            pause_s = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
            raise UnansweredError(f"{self.url}: {problem}", problem, pause_s)
        raise CallscopeError(f"{self.url}: {problem}")


def decode(data: bytes | str, answer: type[Answer]) -> Answer:
    """Decode an answer of the API.

    Raises:
        CallscopeError: the data is not that answer.
    """
    try:
        return msgspec.json.decode(data, type=answer)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CallscopeError(f"the answer is not one of an observer of this version: {error}") from error


def _option_error(parameter: str, problem: str, allowed: Sequence[str]) -> str:
    """The API's error, with the name of the option instead of the parameter."""
    names = [one_line(name) for name in allowed[:MOST_NAMES]]
    if len(allowed) > MOST_NAMES:
        names.append(f"and {len(allowed) - MOST_NAMES} more")
    problem = problem.removeprefix(f"{parameter}: ")
    return f"--{parameter.replace('_', '-')}: {problem}" + (f" (allowed: {', '.join(names)})" if names else "")


@contextlib.contextmanager
def connect(
    config_path: Path | None, url: str | None, jwt: str | None, timeout_s: float = TIMEOUT_S
) -> Iterator[ApiClient]:
    """A client of the observer of a configuration, or at a URL; `url` and `jwt` override the configuration.

    Raises:
        ConfigError: the configuration cannot be used.
        CallscopeError: the options are not enough, or invalid.
    """
    config = None if config_path is None else load(config_path)
    if config is None and url is None:
        raise CallscopeError(
            "--config: is missing: name the configuration of `callscope serve`, or give --url and --jwt "
            "(or set CALLSCOPE_URL and CALLSCOPE_JWT)"
        )
    if jwt is not None:
        token = jwt.strip()
        claimed = _claimed_workspaces(token)
        sign, advice = (lambda _workspace, _ttl_s: token), "give another --jwt, printed by `callscope jwt`"
    elif config is not None:
        claimed = ()
        sign, advice = _signer(config_path, config), f"check that the observer runs with api.jwt of {config_path}"
    else:
        raise CallscopeError("--jwt: is missing: give one that `callscope jwt` prints on the gateway's machine")
    with httpx.Client(trust_env=url is not None) as http:  # no proxy leads to this machine's own observer
        yield ApiClient(
            url=_validated(url) if url is not None else _observer_url(config_path, config),
            url_source="--url" if url is not None else f"observer.listen of {config_path}",
            bearer=sign,
            advice=advice,
            workspaces=claimed if config is None else tuple(sorted(config.workspaces)),
            workspaces_source="the JWT" if config is None else str(config_path),
            http=http,
            timeout_s=timeout_s,
        )


def _signer(path: Path | None, config: Config) -> Callable[[str, float], str]:
    settings: Jwt | None = None if config.api is None else config.api.jwt
    if settings is None or settings.secret is None:
        raise CallscopeError(f"{path}: api.jwt.secret: is missing: it is needed to sign a JWT; set it, or give --jwt")
    return lambda workspace, ttl_s: bearer.issue(settings, [workspace], ttl_s=ttl_s, now=time.time())


def _claimed_workspaces(jwt: str) -> tuple[str, ...]:
    """The workspaces that a JWT names; only the observer verifies whether that is true."""
    try:
        claims: dict[str, Any] = pyjwt.decode(jwt, options={"verify_signature": False})
    except (pyjwt.PyJWTError, ValueError) as error:
        raise CallscopeError("--jwt: is not a JSON Web Token: give one that `callscope jwt` prints") from error
    named = claims.get("workspaces")
    slugs = [slug for slug in named if isinstance(slug, str)] if isinstance(named, list) else []
    return () if bearer.ALL_WORKSPACES in slugs else tuple(slugs)


def _validated(url: str) -> str:
    try:
        return TypeAdapter[str](Url).validate_python(url).rstrip("/")
    except ValidationError as error:
        raise CallscopeError(f"--url: {url!r} is not a URL: write for example https://callscope.example.com") from error


def _observer_url(path: Path | None, config: Config | None) -> str:
    listen = Address(host="", port=0) if config is None else config.observer.listen
    if listen.port == 0:
        raise CallscopeError(f"{path}: observer.listen: has port 0: give --url with the address that serve printed")
    return f"http://{Address(host=_LOCAL.get(listen.host, listen.host), port=listen.port)}"

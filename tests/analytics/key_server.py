"""A key set behind HTTP on 127.0.0.1, and keys to sign with."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

RSA_KEY: Final = rsa.generate_private_key(65537, 2048)
EC_KEY: Final = ec.generate_private_key(ec.SECP256R1())


def public(key: Any, kid: str, **changes: Any) -> dict[str, Any]:
    """The public half as a key set has it."""
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    described: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    return {**described, "kid": kid, "use": "sig", **changes}


@dataclass
class KeyServer:
    """What the address answers, to be changed at any time."""

    keys: list[dict[str, Any]] = field(default_factory=list)
    body: bytes | None = None
    """Instead of the keys."""
    status: int = 200
    requests: int = 0
    url: str = ""
    answering: threading.Event = field(default_factory=threading.Event)
    """While it is not set, requests wait."""


@contextlib.contextmanager
def key_server() -> Iterator[KeyServer]:
    """A server that runs until the end of the block."""
    served = KeyServer()
    served.answering.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests += 1
            served.answering.wait(30)
            body = json.dumps({"keys": served.keys}).encode() if served.body is None else served.body
            with contextlib.suppress(OSError):  # who asked has given up
                self.send_response(served.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}/keys"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        served.answering.set()
        server.shutdown()
        thread.join(10)
        server.server_close()


def nobodys_url() -> str:
    """An address at which nobody listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        return f"http://127.0.0.1:{closed.server_port}/keys"

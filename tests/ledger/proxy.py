"""A TCP proxy that can be told to go silent: it takes what it is sent, passes nothing on, and closes nothing."""

import contextlib
import select
import socket
import threading
from collections.abc import Iterator


class Proxy:
    """Listens on `port`; `silent` may be set and cleared at any time."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.silent = threading.Event()
        self._target = target
        self._stopping = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        self._server.settimeout(0.05)
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._server.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(client,), daemon=True))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._target) as server:
            while not self._stopping.is_set():
                if self.silent.is_set():
                    self._stopping.wait(0.02)
                    continue
                readable, _, _ = select.select([client, server], [], [], 0.02)
                for one, other in ((client, server), (server, client)):
                    if one in readable:
                        data = one.recv(65536)
                        if not data:
                            return
                        other.sendall(data)

    def close(self) -> None:
        """End everything."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(10)
        self._server.close()


@contextlib.contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    """A proxy in front of a port of this machine."""
    running = Proxy(("127.0.0.1", port))
    try:
        yield running
    finally:
        running.close()

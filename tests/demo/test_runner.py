"""The whole demo, as a person runs it."""

import contextlib
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

COMMAND = (sys.executable, "-m", "gateway", "demo")


@contextlib.contextmanager
def in_use(port: int) -> Iterator[None]:
    """Somebody listens on the port: this test, if nobody else does."""
    with contextlib.ExitStack() as held, contextlib.suppress(OSError):
        held.enter_context(socket.create_server(("127.0.0.1", port)))
        yield
        return
    yield


def test_it_ends_by_itself_with_counts_that_agree_though_its_ports_are_taken() -> None:
    with in_use(8080), in_use(9464):
        demo = subprocess.run([*COMMAND, "--seconds", "3"], capture_output=True, text=True, timeout=120, check=False)

    said = demo.stdout
    assert (demo.returncode, demo.stderr) == (0, ""), said
    assert "port 8080 cannot be used (Address already in use): the relay takes a free one" in said
    assert "port 9464 cannot be used (Address already in use): the observer takes a free one" in said
    block = json.loads(said[said.index("{\n") : said.index("\n}\n") + 2])
    entry = block["mcpServers"]["engineering"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/ws/engineering", entry["url"])
    assert re.fullmatch(r"Bearer mwt_[\w-]{43}", entry["headers"]["Authorization"])
    assert re.search(r"^curl -s -H 'Authorization: Bearer \S+' 'http://127\.0\.0\.1:\d+/api\S+'$", said, re.MULTILINE)
    assert re.search(r"^curl -sN .*/logs/stream'$", said, re.MULTILINE)
    assert re.search(r"^export CALLSCOPE_URL=http://127\.0\.0\.1:\d+ CALLSCOPE_JWT=\S+$", said, re.MULTILINE)
    assert f"{sys.executable} -m gateway top --workspace engineering\n" in said
    verdict = re.search(r"^(\d+) calls: all three agree$", said, re.MULTILINE)
    assert verdict is not None, said
    assert int(verdict[1]) > 0


def test_ctrl_c_ends_it_in_order() -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        try:
            assert demo.stdout is not None
            looks = (said for said in demo.stdout if "calls/s" in said)
            assert any(" 0 calls," not in look for look in itertools.islice(looks, 60))
            demo.send_signal(signal.SIGINT)
            rest, errors = demo.communicate(timeout=60)
        finally:
            demo.kill()

    assert demo.returncode == 0, rest
    assert "all three agree" in rest
    assert errors == ""

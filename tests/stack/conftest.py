import os
from collections.abc import Iterator

import pytest

from stack.processes import NotBuiltError, Programs
from tests.stack.backends import missing
from tests.stack.staged import Staged, staged


@pytest.fixture(scope="session")
def programs() -> Programs:
    try:
        return Programs.found(os.environ)
    except NotBuiltError as error:
        missing(str(error))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Iterator[Staged]:
    """The native stack after two minutes of the demo's traffic."""
    with staged(tmp_path_factory.mktemp("stack"), programs) as found:
        yield found

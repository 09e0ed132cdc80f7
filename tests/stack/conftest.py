import os
from collections.abc import Iterator

import pytest

from stack.processes import NotBuiltError, Programs
from tests.backends import missing
from tests.stack.demo_stack import DemoStack, demo_stack


@pytest.fixture(scope="session")
def programs() -> Programs:
    try:
        return Programs.found(os.environ)
    except NotBuiltError as error:
        missing(str(error))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Iterator[DemoStack]:
    """The native stack after two minutes of the demo's traffic."""
    with demo_stack(tmp_path_factory.mktemp("stack"), programs) as found:
        yield found

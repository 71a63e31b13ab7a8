"""What all tests of the client share. They need nothing but the client: no gateway, no network."""

import importlib.util
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_gateway import FakeGateway

# A shell starts what it runs in the background deaf to Ctrl-C, and so would be the command lines under test.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What needs an extra is left out where the extra is.
collect_ignore = [] if importlib.util.find_spec("pydantic") else ["test_parse.py"]


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGateway]:
    """A gateway that answers "Hello there." until it is told otherwise."""
    for name in ("TRUNKLINE_ADDRESS", "TRUNKLINE_API_KEY", "TRUNKLINE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    gateway = FakeGateway()
    yield gateway
    gateway.stop()

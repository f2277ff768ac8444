"""A server for the tests that leave it as they found it."""

from collections.abc import Iterator

import pytest

from tests.serving.running import Running, served


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with served() as running:
        yield running

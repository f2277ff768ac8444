"""A sandbox for the tests of a module."""

from collections.abc import Iterator

import pytest

from codescaler_plugin.execution.sandbox import Sandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(workers=1, timeout=3.0) as pool:
        yield pool

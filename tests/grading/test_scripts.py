"""Names in tests that are Python source."""

import pytest

from codescaler_plugin.grading import scripts


@pytest.mark.parametrize(
    ("source", "free"),
    [
        ("def g(a):\n    b = a + c\n    return b\n", {"c"}),
        ("from m import x\nx + y", {"y"}),
        ("for i in z:\n    i", {"z"}),
        ("[v for v in w]", {"w"}),
        ("def g():\n    global h\n    h = 1\nh", set()),
    ],
)
def test_names_that_a_source_reads_and_does_not_bind(source: str, free: set[str]) -> None:
    assert scripts.read(source, 0).free == free

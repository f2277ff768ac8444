"""Processes that tests start."""

import os


def untraced(**more: str) -> dict[str, str]:
    """This process's environment without coverage: what it traces is a third slower, and others cover it already."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")} | more

"""Imports public names on first use (PEP 562), so that importing a package stays cheap."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package whose public names are defined in its modules.

    `package` is the `__name__` of the package, `homes` the module of each name, relative to the package.

    Example:
        >>> get, names = lazy("codescaler_plugin", {"shape_reward": "shaping"})
        >>> get("shape_reward").__name__
        'shape_reward'
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names

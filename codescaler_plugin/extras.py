"""Optional dependencies, checked before the work that needs them."""

from importlib.util import find_spec

from codescaler_plugin.errors import MissingExtraError


def require(purpose: str, extra: str, *modules: str) -> None:
    """Raise a `MissingExtraError` for `purpose` unless all top-level modules of an extra are there; import none."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f'{purpose} needs {", ".join(missing)}. Install with: pip install "codescaler-plugin[{extra}]"'
        )

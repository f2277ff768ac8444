"""Optional dependencies, checked before the work that needs them."""

from importlib.util import find_spec

from codescaler_plugin.errors import MissingExtraError


def require(purpose: str, extra: str, *modules: str) -> None:
    """Raise an error if a module of an extra is not installed. Imports nothing.

    Args:
        purpose: the feature that needs it, for the message.
        extra: name in `[project.optional-dependencies]`.
        *modules: top-level modules.

    Raises:
        MissingExtraError: a module is not installed. The message has the install command.

    Example:
        >>> require("evaluate pairs", "report", "json")
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f'{purpose} needs {", ".join(missing)}. Install with: pip install "codescaler-plugin[{extra}]"'
        )

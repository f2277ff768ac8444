"""The templates of pages. All that they print is escaped."""

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from codescaler_plugin.safety import html_text

if TYPE_CHECKING:
    from jinja2 import Template


@cache
def template(name: str) -> "Template":
    """A template of this folder.

    Example:
        >>> "&lt;b&gt;" in template("page").render(title="<b>", methods={"rows": [], "head": []}, parts=[])
        True
    """
    from jinja2 import Environment
    from markupsafe import Markup

    def escape(value: Any) -> Any:
        return value if isinstance(value, Markup) else Markup(html_text(str(value)))  # noqa: S704 - html_text escapes

    # The package's own rule, which also shows control characters, in place of jinja's.
    environment = Environment(
        autoescape=True, finalize=escape, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    source = files(__package__).joinpath(f"{name}.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source)

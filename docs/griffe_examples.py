"""The reference shows the examples of docstrings as code: griffe knows them under the title `Examples`."""

import re
from typing import Any

import griffe


class ExamplesExtension(griffe.Extension):
    """Reads the section `Example` of a docstring as one of examples."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"(?m)^( *)Example:$", r"\1Examples:", obj.docstring.value)

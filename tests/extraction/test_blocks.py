"""Fences in lists and quotes, compared with CommonMark's reference in Python on generated shapes."""

from itertools import product

import pytest
from markdown_it import MarkdownIt

from codescaler_plugin import Status, extract_code
from codescaler_plugin.extraction.blocks import find_blocks

CODE = "n = int(input())\nif n:\n    print(n * 2)\n\nprint(n)\n"
HEADS = {
    "prose": "The program:\n",
    "bullet": "- The program:\n",
    "star": "* The program:\n",
    "plus": "+ The program:\n",
    "wide bullet": "-   The program:\n",
    "number": "1. The program:\n",
    "bracket": "2) The program:\n",
    "two digits": "10. The program:\n",
    "task": "- [ ] The program:\n",
    "done task": "- [x] The program:\n",
    "nested bullet": "- Steps\n  - The program:\n",
    "bullet in a number": "1. Steps\n   - read\n   - double\n",
    "number in a bullet": "- Steps\n  1. read\n  2. double\n",
    "lazy line": "- The\nprogram:\n",
    "bold": "1. **The program**:\n",
    "heading": "# The program\n",
    "tabs": "-\tThe program:\n",
    "empty item": "-\n",
}
AFTER = {
    "nothing": "",
    "prose": "Done.\n",
    "blank": "\nDone.\n",
    "item": "2. It runs in O(1).\n",
    "bullet": "- It is fast.\n",
}
INDENTS = ["", " ", "  ", "   ", "    ", "     ", "      ", "       ", "\t", " \t", "\t  "]


def renderer(text: str) -> list[str]:
    parser = MarkdownIt("commonmark").disable("html_block")
    return [token.content for token in parser.parse(text) if token.type == "fence"]


def shapes() -> list[str]:
    made = []
    for head, gap, indent, (after, quote) in product(
        HEADS.values(), ("", "\n"), INDENTS, product(AFTER.values(), ("", "> ", ">"))
    ):
        lines = [f"{indent}```python", *(indent + line if line else "" for line in CODE.splitlines()), f"{indent}```"]
        text = head + gap + "\n".join(lines) + "\n" + after
        made.append("".join(quote + line for line in text.splitlines(keepends=True)))
    return made


def test_every_generated_shape_has_the_blocks_that_a_renderer_shows() -> None:
    different = [text for text in shapes() if [block.text for block in find_blocks(text)] != renderer(text)]
    assert len(shapes()) > 5000
    assert different == []


def test_a_shape_that_a_renderer_shows_as_one_program_is_that_program() -> None:
    wrong = []
    for text in shapes():
        blocks = renderer(text)
        if blocks == [CODE]:
            found = extract_code(text)
            wrong += [text] if (found.status, found.code) != (Status.OK, CODE) else []
    assert wrong == []


@pytest.mark.parametrize("indent", INDENTS[:4])
@pytest.mark.parametrize("head", ["- The program:\n", "1. The program:\n", "> "])
def test_carriage_returns_change_nothing(head: str, indent: str) -> None:
    text = f"{head}{indent}```python\n{indent}x = 1\n{indent}```\n"
    assert extract_code(text.replace("\n", "\r\n")) == extract_code(text)
    assert extract_code(text.replace("\n", "\r")) == extract_code(text)

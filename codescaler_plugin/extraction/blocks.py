"""Fenced code blocks of a completion, read by a CommonMark grammar (tree-sitter-markdown), not by a regex.

Covers backtick and tilde fences, info strings with attributes, fences inside lists and quotes (their indentation and
markers are taken off), CRLF, and unclosed fences. It does not read indented code blocks or inline code as code. One
deviation from CommonMark: HTML is text like any other, so a fence right below `<answer>` is a fence. And one from the
grammar: a text that begins with `---` has no front matter.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate

import tree_sitter_markdown
from tree_sitter import Language, Node, Parser, Point

from codescaler_plugin.extraction.prompts import without_end_marks

MAX_SKELETON_BYTES = 24_576
"""Longest block structure that is parsed: two bytes and the indentation of each line, where one fence is indented."""
MAX_FENCES = 4_000
_SHORT = 256  # bytes of a skeleton worth remembering

# A mark that is quoted or escaped is text that a program handles, not a mark of the chat.
_THINK_OPEN = re.compile(r"(?<!['\"`\\])<think>(?!['\"`\\])")
_THINK_CLOSE = re.compile(r"(?<!['\"`\\])</think>(?!['\"\\]|`(?!``))|</think>(?=[ \t\r]*+\n)")

_MARKERS = rb"[ \t>*+\-.)\d]*+"  # what may stand before a fence: indentation, quote and list markers
_FENCE = re.compile(_MARKERS + rb"(?:`{3}|~{3})")
_MAX_HEAD = 128  # longer rows of markers are cut to it
_NO_FENCE = re.compile(rb"^([ \t>*+\-.)\d]{0,%d}+)(?!%b(?:`{3}|~{3}))[^\n]+" % (_MAX_HEAD, _MARKERS), re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block: text, info string, 1-based line of the opening fence, and whether the fence closed."""

    text: str
    info: str
    line: int
    closed: bool


class TooComplexError(Exception):
    """The Markdown has more structure than is parsed; never leaves this package."""


def strip_thinking(text: str) -> str:
    """The answer part of a completion: what follows the last `</think>`, or precedes an unclosed `<think>`.

    Also right where the chat template has already opened the thinking span, so that only `</think>` is in the text. A
    mark next to a quote, a backtick or a backslash belongs to a program or to prose about it and is left alone, unless
    it is a `</think>` at a line's end. Marks that end a chat or pad it are taken off too, at the very end.
    """
    text = without_end_marks(text)
    start = 0
    if "</think>" in text:
        for match in _THINK_CLOSE.finditer(text):
            start = match.end()
    if "<think>" in text and (opened := _THINK_OPEN.search(text, start)):
        return text[start : opened.start()]
    return text[start:]


def find_blocks(text: str) -> list[Block]:
    """All fenced blocks of a Markdown text, in order; a fence inside another block's text is not a block.

    Raises:
        TooComplexError: more structure than `MAX_SKELETON_BYTES` or `MAX_FENCES`.
    """
    if "```" not in text and "~~~" not in text:
        return []
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    source = text.encode("utf-8", "replace")  # a lone surrogate cannot be encoded; it is no code either
    if len(source) > 3 * MAX_FENCES and source.count(b"```") + source.count(b"~~~") > MAX_FENCES:
        raise TooComplexError
    skeleton, rows = _skeleton(source)
    if len(skeleton) > MAX_SKELETON_BYTES:
        raise TooComplexError
    fences = _fences_of_a_short if len(skeleton) <= _SHORT else _fences
    blocks: list[Block] = []
    line, counted = 1, 0
    for fence in fences(skeleton):
        start = rows[fence.start.row]
        line += source.count(b"\n", counted, start)
        counted = start
        blocks.append(_block(fence, source, rows, line))
    return blocks


@cache
def _language() -> Language:
    return Language(tree_sitter_markdown.language())


def _lines_with(mark: bytes, source: bytes) -> Iterator[tuple[int, int]]:
    """Beginnings and ends (without the newline) of the lines that hold a mark."""
    position = end = 0
    while (position := source.find(mark, end)) >= 0:
        start = source.rfind(b"\n", end, position) + 1
        end = source.find(b"\n", position)
        end = len(source) if end < 0 else end
        yield start, end


def _skeleton(source: bytes) -> tuple[bytes, list[int]]:
    """What of the text decides where fences are, and for each of its rows the offset of its line in the text.

    Prose is nine tenths of a completion and the grammar is slow on it, so a line is cut to its markers and one letter.
    Where every fence stands at the very start of its line, no other line can change what is a fence: one row between
    two fences is then enough.
    """
    marked = list(_lines_with(b"```", source))
    if b"~~~" in source:
        marked = sorted({*marked, *_lines_with(b"~~~", source)})
    fences = [line for line in marked if _FENCE.match(source, *line)]
    kept, rows = [b""], [0]  # the grammar looks for front matter in the first row alone
    if all(source[start] in b"`~" for start, _ in fences):
        after = 0
        for start, end in fences:
            if start > after:
                kept.append(b"x")
                rows.append(after)
            kept.append(source[start:end])
            rows.append(start)
            after = end + 1
        if after <= len(source):
            kept.append(b"x")
            rows.append(after)
    else:
        if source.count(b"\n") > MAX_SKELETON_BYTES:
            raise TooComplexError
        kept.append(_NO_FENCE.sub(rb"\1x", source))
        rows += accumulate((len(line) + 1 for line in source.split(b"\n")[:-1]), initial=0)
    return b"\n".join(kept) + b"\n", rows


@dataclass(frozen=True)
class _Fence:
    """Where a skeleton has a fenced block: the opening fence, the row after the code, and whether a fence closes it.

    `continued` holds, for rows inside lists and quotes, the column after the indentation and marks that continue them.
    """

    start: Point
    after: int
    closed: bool
    continued: dict[int, int]


def _fences(skeleton: bytes) -> list[_Fence]:
    # The grammar takes NUL for the end of the text: it sees another control character, of the same width.
    root = Parser(_language()).parse(skeleton.replace(b"\0", b"\1")).root_node
    return list(map(_fence, _fenced(root)))


# Nine in ten answers have one of a handful of skeletons: prose, a fence, code, a fence, prose.
_fences_of_a_short = lru_cache(1024)(_fences)


def _fenced(root: Node) -> Iterator[Node]:
    pending = [root]
    while pending:
        node = pending.pop()
        if node.type == "fenced_code_block":
            yield node
        elif node.type != "paragraph":
            pending.extend(reversed(node.children))


def _fence(node: Node) -> _Fence:
    children = node.children
    closing = [child for child in children[1:] if child.type == "fenced_code_block_delimiter"]
    end = closing[0].start_point if closing else node.end_point  # of the container, or of the text
    continued = {}
    for child in children:
        for part in [child, *child.children]:
            if part.type == "block_continuation":
                continued[part.end_point.row] = part.end_point.column
    after = end.row if closing or not end.column else end.row + 1
    return _Fence(children[0].start_point, after, bool(closing), continued)


def _block(fence: _Fence, source: bytes, rows: list[int], line: int) -> Block:
    """The block at a fence, its text taken from the whole lines."""
    row, column = fence.start
    end = source.find(b"\n", rows[row])
    opening = source[rows[row] + column : end if end >= 0 else len(source)]
    mark = opening.lstrip()
    info = mark.lstrip(mark[:1]).decode("utf-8", "replace").strip()
    body = source[end + 1 : rows[fence.after] if fence.after < len(rows) else len(source)] if end >= 0 else b""
    # CommonMark §4.5: a fence that is itself indented takes as much indentation off each of its lines.
    indent = len(opening) - len(mark)
    if indent or column:
        columns = fence.continued
        lines = enumerate(body.split(b"\n"), start=row + 1)
        body = b"\n".join(_dedent(text[columns.get(number, 0) :], indent) for number, text in lines)
    return Block(body.decode("utf-8", "replace").removeprefix("\ufeff"), info, line, fence.closed)


def _dedent(line: bytes, indent: int) -> bytes:
    spaces = len(line) - len(line.lstrip(b" "))
    return line[min(spaces, indent) :]

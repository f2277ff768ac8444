"""Fenced code blocks of a completion, as a Markdown renderer shows them. Indented blocks and inline code are not code.

Models write some Markdown that CommonMark reads otherwise. Here, HTML is plain text, so a fence right below `<answer>`
is a fence. Tags glued to a fence are taken off. A closing fence with less indentation than its list closes the block.
A block that begins with an opening fence is the block inside.
"""

import re
from dataclasses import dataclass, replace
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.token import Token

from codescaler_plugin.extraction.fences import MAX_FENCES, FenceLine, TooComplexError, fence_lines, unglued
from codescaler_plugin.extraction.languages import info_language

MAX_SKELETON = 16_384
"""Longest block structure that is parsed, in characters: the markers of each line and one letter."""
_MAX_HEAD = 128  # longer rows of markers are cut to it
_TEXT = re.compile(rf"^([ \t>*+\-.)\d#=_]{{0,{_MAX_HEAD}}}+)[^\n]+", re.MULTILINE)
_MARKERS = " \t>*+-.)0123456789"
_OPENING = re.compile(r"(?:(`{3,}+)[^`]*|(~{3,}+).*)\Z")
_INNER = re.compile(r"(?:[ \t]*+\n)*+[ \t]*+(`{3,}+|~{3,}+)[ \t]*+([^`~\s][^`\n]*+)\n")
_CODE_TAG = re.compile(r"^[ \t]*(?:<pre>)?<(?:code|Code|CODE)((?:\s[^<>\n]{0,100})?)>", re.MULTILINE)
_CODE_END = re.compile(r"</code>", re.IGNORECASE)
_TAGS = re.compile(r"(?:[ \t]|</?\w[^<>\n]{0,60}>|<\|[^<>\n]{0,60}\|>)*+$", re.MULTILINE)
_LANGUAGE_CLASS = re.compile(r"lang(?:uage)?[-=]['\"]?([\w+#.-]+)")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    text: str  # between the fences
    info: str  # of the opening fence
    line: int  # of the opening fence, from 1
    closed: bool  # by a fence
    is_left: bool = False  # the block ends with the list or quote around it, not with the text


def find_blocks(text: str) -> list[Block]:
    """The fenced blocks of a Markdown text, in order; a `TooComplexError` above `MAX_SKELETON` or `MAX_FENCES`."""
    if "```" not in text and "~~~" not in text:
        return []
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()  # a lone surrogate is no code
    fences = list(fence_lines(text))
    if any(fence.is_glued for fence in fences):
        text = unglued(text, fences)
        fences = list(fence_lines(text))
    fences = [fence for fence in fences if not fence.is_glued]
    # Where every fence stands at the very start of its line, no list and no quote can hold one.
    is_flat = all(fence.mark == fence.start for fence in fences)
    blocks = _flat(text, fences) if is_flat else _nested(text)
    return [_inner(block) for block in blocks]


def tagged_blocks(text: str) -> list[Block]:
    """The parts, at most `MAX_FENCES`, between `<code>` and `</code>` on lines of their own, as smolagents writes."""
    blocks: list[Block] = []
    if not any(tag in text for tag in ("<code", "<Code", "<CODE")):
        return blocks
    position, counted, line = 0, 0, 1
    for _ in range(MAX_FENCES):
        opening = _CODE_TAG.search(text, position)
        if opening is None:
            return blocks
        line += text.count("\n", counted, opening.start())
        counted = opening.start()
        language = _LANGUAGE_CLASS.search(opening[1])
        info = language[1] if language else ""
        closing = _CODE_END.search(text, opening.end())
        if closing is None:
            return [*blocks, Block(text[opening.end() :].removeprefix("\n"), info, line, False)]
        position = closing.end()
        if _TAGS.match(text, position):
            blocks.append(Block(text[opening.end() : closing.start()].removeprefix("\n"), info, line, True))
    raise TooComplexError


def _flat(text: str, fences: list[FenceLine]) -> list[Block]:
    blocks: list[Block] = []
    opened: FenceLine | None = None
    line, counted = 1, 0
    for fence in fences:
        if opened is None:
            opened = fence if fence.opens else None
        elif fence.closes(opened):
            line += text.count("\n", counted, opened.start)
            counted = opened.start
            blocks.append(Block(text[opened.end + 1 : fence.start].removeprefix("\ufeff"), opened.info, line, True))
            opened = None
    if opened is not None:
        line += text.count("\n", counted, opened.start)
        blocks.append(Block(text[opened.end + 1 :].removeprefix("\ufeff"), opened.info, line, False))
    return blocks


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark").disable(["html_block", "reference"])  # these hold no fence
    parser.block.ruler.at("fence", _fence, {"alt": ["paragraph", "blockquote", "list"]})
    return parser


def _fence(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """CommonMark §4.5 as a rule of the parser that writes `closed` and `is_left` to `meta`.

    One deviation: a fence that follows right behind the end of the list or quote closes the block as well.
    """
    opening = None if state.is_code_block(start) else _OPENING.match(_line(state, start, state.tShift[start]))
    if opening is None or silent:
        return opening is not None
    fence = opening[1] or opening[2]
    row, closed = start + 1, False
    while row < end:
        line = _line(state, row, state.tShift[row])
        if line and state.sCount[row] < state.blkIndent:
            break
        if _closes(line, fence) and not state.is_code_block(row):
            closed = True
            break
        row += 1
    is_left = not closed and row < len(state.bMarks) - 1
    closed = closed or (is_left and _closes(_line(state, row, 0).lstrip(" \t"), fence))
    token = state.push("fence", "code", 0)
    token.info = opening[0].lstrip(fence[0])
    token.content = state.getLines(start + 1, row, state.sCount[start], True)
    token.map = [start, row]
    token.meta = {"closed": closed, "is_left": is_left and not closed}
    state.line = row + closed
    return True


def _line(state: StateBlock, row: int, indentation: int) -> str:
    return state.src[state.bMarks[row] + indentation : state.eMarks[row]]


def _closes(line: str, fence: str) -> bool:
    return line.startswith(fence) and not line.lstrip(fence[0]).strip(" \t")


def _nested(text: str) -> list[Block]:
    """Blocks in lists and quotes.

    The markers of a line alone decide where blocks are, so the parser reads only the markers and one letter. Prose is
    nine tenths of a completion, and the parser's time grows with characters.
    """
    skeleton = _TEXT.sub(_skeleton_line, text)
    if len(skeleton) > MAX_SKELETON:
        raise TooComplexError
    tokens: list[Token] = []
    # The text ends with a line end, else the parser reads past it where a quote ends in an empty line.
    _parser().block.parse(skeleton.removesuffix("\n") + "\n", _parser(), {}, tokens)
    lines = text.split("\n")
    blocks: list[Block] = []
    for token in tokens:
        if token.type == "fence" and token.map is not None:
            start = token.map[0]
            code = "\n".join(map(_restored, token.content.split("\n"), [*lines[start + 1 :], ""]))
            closed, is_left = token.meta["closed"], token.meta["is_left"]
            if not (closed or is_left or text.endswith("\n")):
                code = code.removesuffix("\n")
            blocks.append(Block(code.removeprefix("\ufeff"), token.info.strip(), start + 1, closed, is_left))
    return blocks


def _skeleton_line(match: re.Match[str]) -> str:
    return match[0] if match[0].lstrip(_MARKERS)[:3] in ("```", "~~~") else match[1] + "x"


def _restored(row: str, line: str) -> str:
    """A row of a block in the skeleton with what the skeleton left out."""
    match = _TEXT.match(line)
    if not row or match is None or _skeleton_line(match) == line:
        return row
    return row[:-1] + line[match.end(1) :]


def _inner(block: Block) -> Block:
    """The block inside a block that begins with an opening fence: a fence too many."""
    match = _INNER.match(block.text)
    if match is None or info_language(block.info) not in ("", info_language(match[2])):
        return block
    text = block.text[match.end() :]
    head, _, last = text.rstrip().rpartition("\n")
    if last.strip() == match[1]:
        text = head + "\n"
    return replace(block, text=text, info=match[2].strip())

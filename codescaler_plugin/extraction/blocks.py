"""Fenced code blocks of a completion, read by a CommonMark grammar (tree-sitter-markdown), not by a regex.

Covers backtick and tilde fences, info strings with attributes, fences inside lists and quotes (their indentation and
markers are taken off), CRLF, and unclosed fences. It does not read indented code blocks or inline code as code.
"""

import re
from dataclasses import dataclass
from functools import cache

import tree_sitter_markdown
from tree_sitter import Language, Node, Parser


@dataclass(frozen=True)
class Block:
    """One fenced block: its text, the first word of its info string in lower case, and whether the fence closed."""

    text: str
    language: str
    closed: bool


def strip_thinking(text: str) -> str:
    """The answer part of a completion: what follows the last `</think>`, or precedes an unclosed `<think>`.

    Also right where the chat template has already opened the thinking span, so that only `</think>` is in the text.
    """
    answer = text.rpartition("</think>")[2]
    return answer.partition("<think>")[0]


def find_blocks(text: str) -> list[Block]:
    """All fenced blocks of a Markdown text, in order; a fence inside another block's text is not a block."""
    source = text.encode("utf-8", "replace") + b"\n"  # a lone surrogate cannot be encoded; it is no code either
    # The grammar takes NUL for the end of the text: it sees another control character, of the same width.
    return [_block(node, source) for node in _fences(_parser().parse(source.replace(b"\0", b"\1")).root_node)]


# A parser holds C state that threads must not share; making one costs microseconds, loading the grammar is cached.
def _parser() -> Parser:
    return Parser(_language())


@cache
def _language() -> Language:
    return Language(tree_sitter_markdown.language())


def _fences(root: Node) -> list[Node]:
    found, pending = [], [root]
    while pending:
        node = pending.pop()
        if node.type == "fenced_code_block":
            found.append(node)
        else:
            pending.extend(reversed(node.children))
    return found


def _block(node: Node, source: bytes) -> Block:
    info, text, delimiters = "", "", []
    for child in node.children:
        if child.type == "fenced_code_block_delimiter":
            delimiters.append(source[child.start_byte : child.end_byte])
        elif child.type == "info_string":
            info = source[child.start_byte : child.end_byte].decode()
        elif child.type == "code_fence_content":
            text = _content(child, source)
    # CommonMark §4.5: a fence that is itself indented takes as much indentation off each of its lines.
    if indent := len(delimiters[0]) - len(delimiters[0].lstrip(b" ")):
        text = re.sub(rf"^ {{1,{indent}}}", "", text, flags=re.MULTILINE)
    words = info.strip(" {}.").replace("{", " ").replace(",", " ").split()
    return Block(text.replace("\r\n", "\n"), words[0].lower() if words else "", closed=len(delimiters) == 2)


def _content(node: Node, source: bytes) -> str:
    """The block's text without the list indentation and quote markers that continue it on each line."""
    parts, position = [], node.start_byte
    for child in node.children:
        if child.type == "block_continuation":
            parts.append(source[position : child.start_byte])
            position = child.end_byte
    parts.append(source[position : node.end_byte])
    return b"".join(parts).decode()

"""AST fingerprints: two programs are duplicates if their syntax trees are equal.

Names, constants and the order of statements count. Layout, comments, docstrings, redundant brackets, quotes and `elif`
in place of `else: if` do not. Programs that differ in names are different on purpose: the policy wrote two programs,
and the reward model judges both. A text that Python cannot parse, or not that deep, equals only itself.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from unicodedata import normalize

from codescaler_plugin.extraction.limits import MAX_CODE_CHARS
from codescaler_plugin.grading.syntax import parsed

_STRING_OR_COMMENT = re.compile(
    r"""[\"'#](?:(?<=")\"{2}(?:[^\\]|\\.)*?(?:\"{3}|\Z)|(?<=')'{2}(?:[^\\]|\\.)*?(?:'{3}|\Z)"""
    r"""|(?<=")(?:[^"\\\n]|\\.)*"?|(?<=')(?:[^'\\\n]|\\.)*'?|(?<=\#)[^\n]*)""",
    re.DOTALL,
)
_HAS_PREFIX = re.compile(r'[rbufRBUF]"')
_PREFIX = re.compile(r"(?i:\b[rbuf]{1,2})?\"")
_MAYBE_ODD = re.compile(r"\d[._a-zA-Z]|\.\d")
_ODD_NUMBER = re.compile(r"(?<!\w)(?:\d+[\w.]|\.\d)[\w.]*(?:(?<=[eE])[+-]\d+)?")
_LAYOUT = str.maketrans("", "", ' \t\r\n\f()\\,;:"')
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)


def parse(code: str) -> ast.Module | None:
    """The syntax tree of a Python program of at most `MAX_CODE_CHARS`, or None."""
    if len(code) > MAX_CODE_CHARS:
        return None
    try:
        return parsed(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def is_text(statement: ast.stmt) -> bool:
    """Whether a statement is a lone string, which is the docstring if it comes first in a body."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def fingerprint(code: str) -> str:
    """A text that is equal for duplicates and different for other programs."""
    tree = parse(code)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Constant):
            node.kind = None  # the `u` before a string
        elif isinstance(node, _DEFINITIONS) and node.body and is_text(node.body[0]):
            node.body[:1] = [] if len(node.body) > 1 or isinstance(node, ast.Module) else [ast.Pass()]
    try:
        return ast.dump(tree) if tree else f"text:{code}"
    except (RecursionError, ValueError):  # too deep; or a number of more digits than Python writes out
        return f"text:{code}"


def distinct_programs(codes: Iterable[str]) -> dict[str, int]:
    """A number for each text, equal for duplicates.

    A syntax tree takes a millisecond, and few of half a million programs are alike. So trees are built only for texts
    that a cheaper key, which duplicates share, cannot tell apart.
    """
    by_key: dict[int, list[str]] = defaultdict(list)
    for code in dict.fromkeys(codes):
        by_key[_prefilter(code)].append(code)
    numbers: dict[str, int] = {}
    count = 0
    for alike in by_key.values():
        fingerprints: dict[str, int] = {}
        for code in alike:
            key = fingerprint(code) if len(alike) > 1 else ""
            numbers[code] = fingerprints.setdefault(key, count + len(fingerprints))
        count += len(fingerprints)
    return numbers


def _prefilter(code: str) -> int:
    """A hash of the letters that a change of layout can neither add nor remove.

    Strings, comments, spaces, brackets and separators are left out. Numbers that are not whole are as Python prints
    them, and `elif` is `else` and `if`.
    """
    bare = code
    if "#" in code or '"' in code or "'" in code:
        bare = _STRING_OR_COMMENT.sub('"', code)
        if _HAS_PREFIX.search(bare):
            bare = _PREFIX.sub("", bare)
    if not bare.isascii():
        bare = normalize("NFKC", bare)
    if _MAYBE_ODD.search(bare):
        bare = _ODD_NUMBER.sub(lambda match: _number(match[0]), bare)
    return hash(bare.translate(_LAYOUT).replace("elif", "elseif").replace("pass", ""))


@lru_cache(maxsize=4096)
def _number(text: str) -> str:
    """A number as Python prints it."""
    try:
        return repr(ast.literal_eval(text))
    except (SyntaxError, ValueError):
        return "#"

"""Is a text a usable Python program? Decided by compiling it without running it.

Compiling catches what a parse does not (a `return` outside a function, a repeated argument name). It says nothing
about what the program does, and the language version is that of the running interpreter.
"""

import ast
import warnings

from codescaler_plugin.records import Status

MAX_CODE_CHARS = 65_536
"""Longest program that is compiled; the longest reference solutions of contest sets are below 10,000 characters."""


def python_status(code: str) -> Status:
    """`ok`, or why the text is not a usable program: `too_long`, `syntax_error`, `too_complex` or `trivial`.

    `trivial` is a program in which nothing happens: only `pass`, constants, docstrings and bare names.
    """
    if len(code) > MAX_CODE_CHARS:
        return Status.TOO_LONG
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SyntaxWarning for '\d' and the like, once per sample otherwise
            tree = ast.parse(code)
            compile(tree, "<completion>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):  # ValueError: NUL byte, lone surrogate
        return Status.SYNTAX_ERROR
    except (RecursionError, MemoryError):  # the two ways in which CPython refuses deep nesting
        return Status.TOO_COMPLEX
    return Status.TRIVIAL if all(map(_does_nothing, tree.body)) else Status.OK


def _does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant | ast.Name)
    return isinstance(statement, ast.Pass)

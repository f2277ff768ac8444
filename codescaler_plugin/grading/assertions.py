"""The assertions of a script: which can fail because of what the program does, and how each is counted.

An `assert` keeps its meaning. One that stands where nothing around it could catch it (in the module, a `check`, a test
function; within `if`, `for` and `while`) is noted when it fails, and the script continues, so that the pass rate is
fine grained: nothing after a failure can undo it.
"""

import ast
import re
from collections.abc import Iterator
from typing import Any

from codescaler_plugin.grading import syntax

NOTE, ERROR, EXCEPTION, FAILURE = "_cs_note", "_cs_error", "_cs_exception", "_cs_failure"
"""Names in rewritten tests."""

_SHOWN = 200  # characters of an assertion in a detail
_ASSERTS = re.compile(r"_*(assert|expect|raises|warns|fail|verify)", re.IGNORECASE)
_ENDS = ("exit", "_exit", "testmod", "run_docstring_examples")


def failures(tree: ast.AST) -> Iterator[bool]:
    """For each statement that looks as if it could make a script fail because of the program: whether it can."""
    for node in syntax.children(tree):
        if isinstance(node, ast.Try) and any(map(_swallows, node.handlers)):
            for part in (*node.handlers, *node.orelse, *node.finalbody):
                yield from failures(ast.Module([part], []))  # type: ignore[list-item]
            continue
        if isinstance(node, ast.Assert):
            yield not _is_always_true(node.test)
        elif isinstance(node, ast.Raise):
            yield True
        elif isinstance(node, ast.Call):
            name = syntax.last_name(node.func)
            if _ASSERTS.match(name):
                yield not _is_own(node.func) or any(not isinstance(part, ast.Constant) for part in node.args)
            elif name in _ENDS:
                yield True
        yield from failures(node)


def _is_always_true(node: ast.AST) -> bool:
    """Whether an asserted expression tests nothing."""
    if isinstance(node, ast.Constant):
        return bool(node.value)
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return bool(node.elts) and not any(isinstance(item, ast.Starred) for item in node.elts)
    if isinstance(node, ast.Dict):
        return any(key is not None for key in node.keys)
    if isinstance(node, ast.BoolOp):
        return (any if isinstance(node.op, ast.Or) else all)(map(_is_always_true, node.values))
    if isinstance(node, ast.Compare) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)):
        return not any(isinstance(inner, ast.Name | ast.Call) for inner in syntax.walk(node)) and _value(node)
    return isinstance(node, ast.Lambda | ast.GeneratorExp)


def _value(node: ast.AST) -> bool:
    """The truth of an expression of constants; one that raises is not true."""
    try:
        return bool(eval(compile(ast.Expression(node), "<constants>", "eval"), {"__builtins__": {}}))  # type: ignore[arg-type]
    except Exception:  # any that such an expression raises
        return False


def _swallows(handler: ast.ExceptHandler) -> bool:
    """Whether a handler catches failed assertions and does nothing about them."""
    caught = set(map(syntax.last_name, syntax.walk(handler.type))) if handler.type is not None else {"BaseException"}
    if not caught & {"AssertionError", "Exception", "BaseException"}:
        return False
    return all(
        isinstance(node, ast.Pass | ast.Continue)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and syntax.last_name(node.value.func) == "print"
        )
        for node in handler.body
    )


def _is_own(node: ast.AST) -> bool:
    """Whether a function is an assertion of a TestCase, which says nothing about constants."""
    is_self = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    return is_self and syntax.last_name(node).startswith("assert")


class Noted:
    """A script's tree with its assertions noted.

    Args:
        tree: the script's tree, which is changed.
        nodes: all nodes of the tree.
        source: the script's source.
        number: the script's index among the problem's.
        run: test functions that the script does not call itself.
    """

    def __init__(self, tree: ast.Module, nodes: list[ast.AST], source: str, number: int, run: set[str]) -> None:
        self.tree = tree
        self.lines = source.encode().splitlines()
        self.number = number
        self.sites: list[tuple[str, str]] = []  # of each noted assertion its text, and the function that it stands in
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        self.helpers = {name for name, node in functions.items() if any(failures(node))}
        called = [syntax.called_function(node.value) for node in _statements(tree.body) if isinstance(node, ast.Expr)]
        used = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
        self.open = {  # functions whose assertions nothing around them can catch
            name
            for name, node in functions.items()
            if (name == "check" or name.startswith("test"))
            and not node.decorator_list
            and ((name in run and name not in used) or (name in called and used.count(name) == called.count(name)))
        }
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name in self.open:
                node.body = self._block(node.body, node.name)
        tree.body = self._block(tree.body, "")

    def _block(self, body: list[ast.stmt], function: str) -> list[ast.stmt]:
        return [self._statement(node, function) for node in body]

    def _statement(self, node: ast.stmt, function: str) -> ast.stmt:
        if isinstance(node, ast.If | ast.For | ast.While):
            node.body, node.orelse = self._block(node.body, function), self._block(node.orelse, function)
        elif isinstance(node, ast.Assert):
            if _is_always_true(node.test):
                return ast.copy_location(ast.Expr(node.test), node)
            return self._noted(node, node.test, function)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and self._is_helper(node.value):
            return self._noted(node, node.value, function, is_statement=True)
        return node

    def _is_helper(self, node: ast.Call) -> bool:
        """Whether a call makes assertions that are not noted themselves."""
        called, name = syntax.called_function(node), syntax.last_name(node.func)
        if called in self.open:
            return False
        return called in self.helpers or bool(_ASSERTS.match(name) and name.lower().startswith("assert"))

    def _noted(self, node: ast.stmt, value: ast.expr, function: str, *, is_statement: bool = False) -> ast.stmt:
        site = len(self.sites)
        text = b"\n".join(self.lines[node.lineno - 1 : node.end_lineno])[node.col_offset :].decode("utf-8", "replace")
        self.sites.append((text if len(text) <= _SHOWN else text[:_SHOWN] + "...", function))
        site_id = f"{self.number}, {site}"
        body = f"0\n {NOTE}({site_id}, 1)" if is_statement else f"{NOTE}({site_id}, 0)"
        frame: Any
        (frame,) = ast.parse(f"try:\n {body}\nexcept {EXCEPTION} as {FAILURE}:\n {ERROR}({site_id}, {FAILURE})").body
        if is_statement:
            frame.body[0].value = value
        else:
            frame.body[0].value.args[2] = value
        ast.copy_location(frame, node)
        return frame  # type: ignore[no-any-return]


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a block and of those within `if`, `for` and `while`."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.For | ast.While):
            yield from _statements([*node.body, *node.orelse])

"""Reads tests that are Python source, without running them: their names, the tests they define, what can fail in them.

An `assert` keeps its meaning. One that stands where nothing around it could catch it (in the module, a `check`, a test
function; within `if`, `for` and `while`) is noted when it fails, and the script continues, so that the pass rate is
fine grained: nothing after a failure can undo it.
"""

import ast
import re
import symtable
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from codescaler_plugin.grading import syntax

SOLUTIONS = frozenset({"solution", "solutions", "candidate", "submission", "answer", "main", "code", "your_module"})
"""Modules that tests import the program from."""
NOTE, ERROR, EXCEPTION, FAILURE = "_cs_note", "_cs_error", "_cs_exception", "_cs_failure"
"""Names in rewritten tests."""
_RUNNERS = ("unittest.main", "pytest.main")
_LOADERS = ("loadTestsFromModule", "loadTestsFromName")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SHOWN = 200  # characters of an assertion in a detail
_ASSERTS = re.compile(r"_*(assert|expect|raises|warns|fail|verify)", re.IGNORECASE)
_ENDS = ("exit", "_exit", "testmod", "run_docstring_examples")


@dataclass
class Script:
    """One script of tests."""

    number: int  # its index among the problem's
    tree: ast.Module  # rewritten
    nodes: list[ast.AST]  # of the tree as it was, except constants
    aliases: dict[str, str]  # dotted names behind imported names
    free: frozenset[str]  # names that it reads and does not bind
    bound: frozenset[str]  # names that it binds at its top level
    imported: frozenset[str]  # names that it imports from a module of the program
    modules: frozenset[str]  # such modules
    can_fail: bool  # something in it can fail because of what the program does
    functions: list[str]  # test functions that it does not call itself
    suites: list[str]  # classes of tests that it does not run itself
    check: str  # its function `check`, if it does not call it itself
    sites: list[tuple[str, str]]  # assertions that are noted, as text, and the function that each stands in
    names: frozenset[str]  # all names and attributes that it reads


def read(source: str, number: int) -> Script:
    """Parse and rewrite one script; its source may raise a SyntaxError."""
    tree = syntax.parsed(source)
    free, bound = _scope(source)
    nodes = syntax.walk(tree)
    aliases = syntax.aliases_of(nodes)
    modules, imported = _imports_of_program(nodes)
    if any(_is_runner(node, aliases) for node in nodes):
        tree = _WithoutRunners(aliases).visit(tree)
    used = _used_by_itself(tree)
    functions, suites, check = [], [], ""
    for node in tree.body:
        if isinstance(node, _FUNCTIONS) and node.name not in used:
            if node.name.startswith("test"):
                functions.append(node.name)
            elif node.name == "check" and _required_arguments(node) <= 1:
                check = node.name
        elif isinstance(node, ast.ClassDef) and node.name not in used and _is_suite(node, tree):
            suites.append(node.name)
    can_fail = any(failures(tree))
    noted = Noted(tree, nodes, source, number, {*functions, check} - {""})
    return Script(
        number=number,
        tree=noted.tree,
        nodes=nodes,
        aliases=aliases,
        free=frozenset(free),
        bound=frozenset(bound),
        imported=frozenset(imported),
        modules=frozenset(modules),
        can_fail=can_fail,
        functions=functions,
        suites=suites,
        check=check,
        sites=noted.sites,
        names=frozenset(filter(None, map(syntax.last_name, nodes))),
    )


def _scope(source: str) -> tuple[set[str], set[str]]:
    """Names that are read and bound nowhere; names that the top level binds."""
    table = symtable.symtable(source, "<test>", "exec")
    symbols = table.get_symbols()
    bound = {name.get_name() for name in symbols if name.is_assigned() or name.is_imported() or name.is_namespace()}
    read = {name.get_name() for name in symbols if name.is_referenced()}
    stack = list(table.get_children())
    while stack:
        scope = stack.pop()
        stack += scope.get_children()
        for name in scope.get_symbols():
            if name.is_global() and name.is_referenced():
                read.add(name.get_name())
            if name.is_declared_global() and name.is_assigned():
                bound.add(name.get_name())
    return read - bound, bound


def _imports_of_program(nodes: list[ast.AST]) -> tuple[set[str], set[str]]:
    """Modules that stand for the program, and the names that are imported from them."""
    modules, names = set(), set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            top = (node.module or "").partition(".")[0]
            if node.level or (top in SOLUTIONS and top != "code") or top.startswith(("solution", "your_")):
                modules.add(node.module or "")
                names |= {alias.name for alias in node.names if alias.name != "*"}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names if alias.name in SOLUTIONS - {"code"}}
    return modules - {""}, names


def _is_runner(node: ast.AST, aliases: dict[str, str]) -> bool:
    return isinstance(node, ast.Call) and syntax.dotted_name(node.func, aliases) in _RUNNERS


class _WithoutRunners(ast.NodeTransformer):
    """Takes out statements that hand a module to a runner of tests: `suites` runs them."""

    def __init__(self, aliases: dict[str, str]) -> None:
        self.aliases = aliases

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        runs = any(_is_runner(inner, self.aliases) for inner in syntax.walk(node))
        return ast.copy_location(ast.Pass(), node) if runs else node


def _used_by_itself(tree: ast.Module) -> set[str]:
    """Names of the functions and classes of a module that it uses itself, outside of their own bodies."""
    used: set[str] = set()
    for node in tree.body:
        nodes = syntax.walk(node)
        own = node.name if isinstance(node, (*_FUNCTIONS, ast.ClassDef)) else ""
        used |= {name.id for name in nodes if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load)} - {own}
        if any(isinstance(inner, ast.Attribute) and inner.attr in _LOADERS for inner in nodes):
            used |= {suite.name for suite in tree.body if isinstance(suite, ast.ClassDef)}
    return used


def _required_arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return len(node.args.posonlyargs) + len(node.args.args) - len(node.args.defaults)


def _is_suite(node: ast.ClassDef, tree: ast.Module) -> bool:
    bases = {syntax.last_name(base) for base in node.bases}
    if any(base.endswith("TestCase") for base in bases):
        return True
    if any(isinstance(base, ast.ClassDef) and base.name in bases and _is_suite(base, tree) for base in tree.body):
        return True
    methods = [method.name for method in node.body if isinstance(method, _FUNCTIONS)]
    has_tests = any(name.startswith("test") for name in methods) or any(
        isinstance(inner, ast.ClassDef) and _is_suite(inner, tree) for inner in node.body
    )
    return node.name.startswith("Test") and "__init__" not in methods and has_tests


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
    for node in handler.body:
        value = node.value if isinstance(node, ast.Expr) else None
        is_print = isinstance(value, ast.Call) and syntax.last_name(value.func) == "print"
        if not (isinstance(node, ast.Pass | ast.Continue) or isinstance(value, ast.Constant) or is_print):
            return False
    return True


def _is_own(node: ast.AST) -> bool:
    """Whether a function is an assertion of a TestCase, which says nothing about constants."""
    is_self = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    return is_self and syntax.last_name(node).startswith("assert")


class Noted:
    """A script's tree, changed so that its assertions are noted; it does not call the test functions `run` itself."""

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

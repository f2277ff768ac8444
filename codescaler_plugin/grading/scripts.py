"""Reads tests that are Python source: the names that they use, and the tests that they define without running them."""

import ast
import symtable
from dataclasses import dataclass

from codescaler_plugin.grading import assertions, syntax

SOLUTIONS = frozenset({"solution", "solutions", "candidate", "submission", "answer", "main", "code", "your_module"})
"""Modules that tests import the program from."""

_RUNNERS = ("unittest.main", "pytest.main")
_LOADERS = ("loadTestsFromModule", "loadTestsFromName")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


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
    """Parse and rewrite one script.

    Raises:
        SyntaxError: the source is not Python.
    """
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
    can_fail = any(assertions.failures(tree))
    noted = assertions.Noted(tree, nodes, source, number, {*functions, check} - {""})
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

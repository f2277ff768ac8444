"""Reads and rewrites tests that are Python source: what they ask for, whether they can fail, and what is counted.

An `assert` keeps its meaning. One that stands where nothing around it could catch it (the module, a `check`, a test
function; through `if`, `for` and `while`) is noted when it fails and the script goes on, so that a pass rate is fine
grained: what goes on after a failure cannot undo it.
"""

import ast
import builtins
import re
import symtable
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

NOTE, ERROR, EXCEPTION, FAILURE = "_cs_note", "_cs_error", "_cs_exception", "_cs_failure"  # names in rewritten tests
SOLUTIONS = frozenset({"solution", "solutions", "candidate", "submission", "answer", "main", "code", "your_module"})
"""Modules that tests import the program from."""
PACKAGES = {
    "np": "numpy",
    "pd": "pandas",
    "plt": "matplotlib.pyplot",
    "nx": "networkx",
    "sp": "scipy",
    "tf": "tensorflow",
}
"""Usual names of packages."""

STDLIB = sys.stdlib_module_names - {"antigravity", "this"}
"""Modules of the standard library, but those that do something when they are imported."""

_SHOWN = 200  # characters of an assertion in a detail
_ASSERTS = re.compile(r"_*(assert|expect|raises|warns|fail|verify)", re.IGNORECASE)
_LEAVES = frozenset({ast.Constant, ast.Load, ast.Store, ast.Del})
_NAMES = (ast.Name, ast.Attribute)
_CHECKS = ("isinstance", "issubclass", "assertIsInstance", "assertNotIsInstance")
_RAISES = ("raises", "assertRaises", "assertRaisesRegex")
_RUNNERS = ("unittest.main", "pytest.main")

# What a test cannot do to a program in another process: where one of these is used, both share a process.
_SHARED = {
    **dict.fromkeys(("unittest.mock", "mock", "patch"), "it patches what the program uses"),
    **dict.fromkeys(("random.seed", "random.setstate", "numpy.random.seed"), "it seeds the program's random numbers"),
    **dict.fromkeys(("sys.stdout", "sys.stderr", "contextlib.redirect_stdout"), "it reads what the program prints"),
    **dict.fromkeys(("contextlib.redirect_stderr", "builtins"), "it reads what the program prints"),
    **dict.fromkeys(("sys.stdin", "sys.argv"), "it gives the program input"),
    **dict.fromkeys(("os", "open", "io.open", "tempfile", "pathlib", "shutil"), "it shares files with the program"),
    **dict.fromkeys(("subprocess", "zipfile", "tarfile", "sqlite3"), "it shares files with the program"),
    **dict.fromkeys(
        ("asyncio", "threading", "concurrent", "multiprocessing", "signal"), "it runs the program by turns"
    ),
    **dict.fromkeys(
        ("inspect", "types", "typing", "collections.abc", "dataclasses"), "it looks at the program's types"
    ),
    **dict.fromkeys(("vars", "dir", "locals", "delattr", "gc", "weakref"), "it looks at the program's objects"),
    **dict.fromkeys(("logging", "warnings", "pytest.warns", "tracemalloc"), "it hears the program's warnings"),
    **dict.fromkeys(("pickle", "sys.modules", "importlib"), "it takes the program's objects apart"),
}
_FIXTURES = frozenset({"capsys", "capfd", "monkeypatch", "tmp_path", "tmpdir", "caplog", "recwarn", "mocker"})
_HEARD = frozenset({"assertWarns", "assertWarnsRegex", "assertLogs", "assertNoLogs", "warns", "deprecated_call"})


@dataclass
class Script:
    """One script of tests."""

    number: int  # its place among the problem's
    tree: ast.Module  # rewritten
    nodes: list[ast.AST]  # of the tree as it was, but for constants
    aliases: dict[str, str]  # dotted names behind imported names
    free: frozenset[str]  # names that it reads and does not bind
    bound: frozenset[str]  # names that it binds at its top level
    imported: frozenset[str]  # names that it imports from a module of the program
    modules: frozenset[str]  # such modules
    has_teeth: bool  # something in it can fail
    functions: dict[str, list[str]]  # test functions that it does not call itself, with the names of their arguments
    suites: list[str]  # names of classes of tests that it does not run itself
    check: str  # its function `check`, if it does not call it itself
    sites: list[tuple[str, str]]  # assertions that are noted, as text, and the function that each stands in
    names: frozenset[str]  # all names and attributes that it reads


@dataclass(frozen=True)
class Asked:
    """What the tests may ask of the program, and what for."""

    first: str  # name of the function or class under test; `Solution` for a method
    named: frozenset[str]  # further names
    is_class: bool = False  # the problem asks for a class, whose objects compare as it says
    has_objects: bool = False  # tests use classes of the program by name
    words: frozenset[str] = field(default=frozenset(), repr=False)  # of the problem's text


def read(source: str, number: int) -> Script:
    """Parse and rewrite one script.

    Raises:
        SyntaxError: it is no Python source.
    """
    tree = parsed(source)
    free, bound = _scope(source)
    nodes = walk(tree)
    aliases = _aliases(nodes)
    modules, imported = _imports_of_solution(nodes)
    if any(_is_runner(node, aliases) for node in nodes):
        tree = _Runners(aliases).visit(tree)
    called = _calls_of_functions(tree)
    functions, suites, check = {}, [], ""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in called:
            if node.name.startswith("test"):
                functions[node.name] = _required(node)
            elif node.name == "check" and len(_required(node)) <= 1:
                check = node.name
        elif isinstance(node, ast.ClassDef) and node.name not in called and _is_suite(node, tree):
            suites.append(node.name)
    has_teeth = any(_teeth(tree))
    names = {node.id if isinstance(node, ast.Name) else node.attr for node in nodes if isinstance(node, _NAMES)}
    counting = _Counting(tree, nodes, source, number, {*functions, check} - {""})
    return Script(
        number,
        counting.rewritten(),
        nodes,
        aliases,
        frozenset(free),
        frozenset(bound),
        frozenset(imported),
        frozenset(modules),
        has_teeth,
        functions,
        suites,
        check,
        counting.sites,
        frozenset(names),
    )


def parsed(source: str) -> ast.Module:
    """The syntax tree; invalid escapes are the data's, and nothing to warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def walk(tree: ast.AST) -> list[ast.AST]:
    """The nodes of a tree but for its constants: tests are full of them."""
    stack, found = [tree], []
    while stack:
        node = stack.pop()
        found.append(node)
        stack += _children(node)
    return found


def _children(node: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for value in vars(node).values():
        if type(value) is list:
            found += [one for one in value if type(one) is not ast.Constant and isinstance(one, ast.AST)]
        elif isinstance(value, ast.AST) and type(value) not in _LEAVES:
            found.append(value)
    return found


def asked_of(job: dict[str, Any], scripts: list[Script], provided: Iterable[str]) -> Asked:
    """What the problem and its tests ask of the program; `provided` are names that the preamble binds."""
    first, _, method = job["entry_point"].partition(".")
    texts = f"{job.get('preamble', '')}\n{job.get('text', '')}"
    named = frozenset(job.get("names") or ()) | ({method} if method else set())
    others = {*provided, *vars(builtins), *PACKAGES, *STDLIB}
    words = frozenset(re.findall(r"[A-Za-z_]\w*", job.get("text", ""))) - others
    imported = frozenset().union(*(script.imported for script in scripts))
    free = frozenset().union(*(script.free for script in scripts))
    roles = _Roles(first)
    for script in scripts:
        roles.visit(script.tree)
    used_so = (roles.only_arguments() | roles.classes) - others
    allowed = named | imported | used_so | {"Solution", "candidate", first}
    if not allowed & (free | imported):  # nothing else says what is tested
        allowed |= free - others
    used = {name for name in free | imported if name in allowed or name in words}
    is_class = first not in ("", "Solution") and bool(
        re.search(rf"\bclass\s+{re.escape(first)}\b", texts)
        or first in roles.classes
        or (
            first[:1].isupper()
            and first in roles.has_attributes
            and not re.search(rf"\bdef\s+{re.escape(first)}\b", texts)
        )
    )
    beside = used - {first, method, "Solution", "candidate"}
    has_objects = is_class or bool(beside & roles.constructed) or bool(roles.instances & used)
    return Asked(first, frozenset(allowed - {""}), is_class, has_objects, words)


def beyond(script: Script, asked: Asked) -> str:
    """Why a script needs the program in its own process; empty if it does not."""
    theirs = (asked.named | asked.words) & (script.free | script.imported) | script.imported | {"candidate"}
    aliases = script.aliases
    own = script.bound - aliases.keys()
    for node in script.nodes:
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncWith | ast.AsyncFor):
            return "it awaits coroutines"
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load | ast.Store):
            parts = _dotted(node, aliases).split(".")
            if parts[0] not in own:
                for end in range(1, len(parts) + 1):
                    reason = _SHARED.get(".".join(parts[:end]))
                    if reason:
                        return reason
        if isinstance(node, ast.ClassDef) and any(_reads(base, theirs) for base in node.bases):
            return "it derives from a class of the program"
        if isinstance(node, ast.ExceptHandler):
            if node.type is not None and _reads(node.type, theirs):
                return "it catches an exception of the program"
            attributes = [one.value for one in walk(node) if isinstance(one, ast.Attribute)] if node.name else []
            if any(isinstance(one, ast.Name) and one.id == node.name for one in attributes):
                return "it looks at an exception's attributes"
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Attribute)
            and (node.value.attr == "exception" or (node.value.attr == "value" and "pytest" in script.names))
        ):
            return "it looks at an exception's attributes"
        if isinstance(node, ast.Call):
            name = _last(node.func)
            if name in _CHECKS and any(_reads(one, theirs) for one in node.args[name != "issubclass" : 2]):
                return "it looks at classes of the program"
            if name in _RAISES and node.args and _reads(node.args[0], theirs):
                return "it catches an exception of the program"
            if name == "type" and asked.has_objects:
                return "it looks at classes of the program"
            if name in _HEARD:
                return "it hears the program's warnings"
        if isinstance(node, ast.FunctionDef) and _FIXTURES & {one.arg for one in node.args.args}:
            return "it uses pytest's fixtures"
    return ""


def _scope(source: str) -> tuple[set[str], set[str]]:
    """Names that are read and nowhere bound; names that the top level binds."""
    table = symtable.symtable(source, "<test>", "exec")
    bound = {one.get_name() for one in table.get_symbols() if one.is_assigned() or one.is_imported()}
    bound |= {one.get_name() for one in table.get_symbols() if one.is_namespace()}
    read = {one.get_name() for one in table.get_symbols() if one.is_referenced()}
    stack = list(table.get_children())
    while stack:
        scope = stack.pop()
        stack += scope.get_children()
        for one in scope.get_symbols():
            if one.is_global() and one.is_referenced():
                read.add(one.get_name())
            if one.is_declared_global() and one.is_assigned():
                bound.add(one.get_name())
    return read - bound, bound


def _imports_of_solution(nodes: list[ast.AST]) -> tuple[set[str], set[str]]:
    modules, names = set(), set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            top = (node.module or "").partition(".")[0]
            if node.level or (top in SOLUTIONS and top != "code") or top.startswith(("solution", "your_")):
                modules.add(node.module or "")
                names |= {alias.name for alias in node.names if alias.name != "*"}
        elif isinstance(node, ast.Import):
            modules |= {one.name for one in node.names if one.name in SOLUTIONS - {"code"}}
    return modules - {""}, names


def _is_runner(node: ast.AST, aliases: dict[str, str]) -> bool:
    return isinstance(node, ast.Call) and _dotted(node.func, aliases) in _RUNNERS


class _Runners(ast.NodeTransformer):
    """Takes out statements that hand a module to a runner of tests: they are run from outside."""

    def __init__(self, aliases: dict[str, str]) -> None:
        self.aliases = aliases

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        runs = any(_is_runner(one, self.aliases) for one in walk(node))
        return ast.copy_location(ast.Pass(), node) if runs else node


def _aliases(nodes: list[ast.AST]) -> dict[str, str]:
    """Dotted names behind imported names."""
    found = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for one in node.names:
                top = one.name.partition(".")[0]
                found[one.asname or top] = one.name if one.asname else top
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for one in node.names:
                found[one.asname or one.name] = f"{node.module}.{one.name}"
    return found


def _dotted(node: ast.AST, aliases: dict[str, str]) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([aliases.get(node.id, node.id), *reversed(parts)])


def _last(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _reads(node: ast.AST, names: Iterable[str]) -> bool:
    return any(isinstance(one, ast.Name) and one.id in names for one in walk(node))


def _calls_of_functions(tree: ast.Module) -> set[str]:
    """Names of the module's functions and classes that it uses itself, outside of their own bodies."""
    used: set[str] = set()
    whole = False
    for node in tree.body:
        names = {one.id for one in walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)}
        own = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else ""
        used |= names - {own}
        whole |= any(
            isinstance(one, ast.Attribute) and one.attr in ("loadTestsFromModule", "loadTestsFromName")
            for one in walk(node)
        )
    if whole:
        used |= {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    return used


def _required(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    arguments = node.args
    plain = [*arguments.posonlyargs, *arguments.args]
    return [one.arg for one in plain[: len(plain) - len(arguments.defaults)]]


def _is_suite(node: ast.ClassDef, tree: ast.Module) -> bool:
    if any(_last(base).endswith("TestCase") for base in node.bases):
        return True
    bases = {_last(base) for base in node.bases}
    if any(isinstance(one, ast.ClassDef) and one.name in bases and _is_suite(one, tree) for one in tree.body):
        return True
    methods = [one.name for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    has_tests = any(one.startswith("test") for one in methods) or any(
        isinstance(one, ast.ClassDef) and _is_suite(one, tree) for one in node.body
    )
    return node.name.startswith("Test") and "__init__" not in methods and has_tests


def _always_true(node: ast.AST) -> bool:
    """Whether an asserted expression says nothing."""
    if isinstance(node, ast.Constant):
        return bool(node.value)
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return bool(node.elts) and not any(isinstance(one, ast.Starred) for one in node.elts)
    if isinstance(node, ast.Dict):
        return any(key is not None for key in node.keys)
    if isinstance(node, ast.BoolOp):
        return (any if isinstance(node.op, ast.Or) else all)(map(_always_true, node.values))
    if isinstance(node, ast.Compare) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)):
        return not any(isinstance(one, ast.Name | ast.Call) for one in walk(node)) and _value(node)
    return isinstance(node, ast.Lambda | ast.GeneratorExp)


def _value(node: ast.AST) -> bool:
    """The truth of an expression of constants."""
    try:
        return bool(eval(compile(ast.Expression(node), "<constants>", "eval"), {"__builtins__": {}}))  # type: ignore[arg-type]
    except Exception:  # whatever such an expression raises, it is not true
        return False


def _teeth(tree: ast.AST) -> Iterator[bool]:
    """Whatever in a tree can make it fail because of what the program does."""
    for node in _children(tree):
        if isinstance(node, ast.Try) and any(map(_swallows, node.handlers)):
            for part in (*node.handlers, *node.orelse, *node.finalbody):
                yield from _teeth(ast.Module([part], []))  # type: ignore[list-item]
            continue
        if isinstance(node, ast.Assert):
            yield not _always_true(node.test)
        elif isinstance(node, ast.Raise):
            yield True
        elif isinstance(node, ast.Call) and _ASSERTS.match(_last(node.func)):
            yield not _is_own(node.func) or any(not isinstance(one, ast.Constant) for one in node.args)
        elif isinstance(node, ast.Call) and _last(node.func) in ("exit", "_exit", "testmod", "run_docstring_examples"):
            yield True
        yield from _teeth(node)


def _swallows(handler: ast.ExceptHandler) -> bool:
    """Whether a handler takes failed assertions without any effect."""
    caught = {_last(one) for one in walk(handler.type)} if handler.type is not None else {"BaseException"}
    if not caught & {"AssertionError", "Exception", "BaseException"}:
        return False
    return all(
        isinstance(one, ast.Pass | ast.Continue)
        or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
        or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Call) and _last(one.value.func) == "print")
        for one in handler.body
    )


def _is_own(node: ast.AST) -> bool:
    """Whether a function is an assertion of a TestCase, which says nothing of constants."""
    is_self = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    return is_self and _last(node).startswith("assert")


class _Roles(ast.NodeVisitor):
    """What names are used for in tests."""

    def __init__(self, first: str) -> None:
        self.entries = {first, "candidate"} - {""}
        self.everywhere: dict[str, int] = {}
        self.within_arguments: dict[str, int] = {}
        self.classes: set[str] = set()  # used as classes: caught, derived from, or asked whether something is one
        self.instances: set[str] = set()
        self.constructed: set[str] = set()
        self.has_attributes: set[str] = set()  # attributes of what a call of it gives are read
        self.made_by: dict[str, str] = {}
        self.depth = 0

    def only_arguments(self) -> set[str]:
        """Names that occur only within what the program is given: it may choose its own arguments."""
        return {name for name, count in self.within_arguments.items() if count == self.everywhere[name]}

    def generic_visit(self, node: ast.AST) -> None:
        """Visit all but constants."""
        for one in _children(node):
            self.visit(one)

    def visit_Name(self, node: ast.Name) -> None:
        self.everywhere[node.id] = self.everywhere.get(node.id, 0) + 1
        if self.depth:
            self.within_arguments[node.id] = self.within_arguments.get(node.id, 0) + 1

    def visit_Call(self, node: ast.Call) -> None:
        name = _last(node.func)
        if isinstance(node.func, ast.Name):
            self.constructed |= {name} if name[:1].isupper() else set()
        self.visit(node.func)
        is_entry = isinstance(node.func, ast.Name) and name in self.entries
        self.depth += is_entry
        for part in (*node.args, *node.keywords):
            self.visit(part)
        self.depth -= is_entry
        if name in _CHECKS and len(node.args) > 1:
            self._note(node.args[1], is_instance=True)
        if name in _RAISES and node.args:
            self._note(node.args[0])

    def visit_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
            self.made_by.update((one.id, node.value.func.id) for one in node.targets if isinstance(one, ast.Name))
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
            self.has_attributes.add(node.value.func.id)
        elif isinstance(node.value, ast.Name) and node.value.id in self.made_by:
            self.has_attributes.add(self.made_by[node.value.id])
        elif isinstance(node.value, ast.Name) and node.value.id[:1].isupper():
            self.constructed.add(node.value.id)
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            self._note(base, is_instance=True)
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is not None:
            self._note(node.type)
        self.generic_visit(node)

    def _note(self, node: ast.AST, *, is_instance: bool = False) -> None:
        names = {one.id for one in walk(node) if isinstance(one, ast.Name)}
        self.classes |= names
        self.instances |= names if is_instance else set()


class _Counting:
    """The same tests, with each assertion noted that nothing around it could catch."""

    def __init__(self, tree: ast.Module, nodes: list[ast.AST], source: str, number: int, run: set[str]) -> None:
        self.tree = tree
        self.lines = source.encode().splitlines()
        self.number = number
        self.sites: list[tuple[str, str]] = []
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        self.helpers = {name for name, node in functions.items() if any(_teeth(node))}
        statements = self._statements(tree.body)
        plain = {
            name: node
            for name, node in functions.items()
            if (name == "check" or name.startswith("test")) and not node.decorator_list
        }
        free_standing = [_called(one) for one in statements]
        used = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
        self.open = {
            name
            for name in plain
            if (name in run and name not in used)
            or (name in free_standing and used.count(name) == free_standing.count(name))
        }

    def rewritten(self) -> ast.Module:
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef) and node.name in self.open:
                node.body = self._block(node.body, node.name)
        self.tree.body = self._block(self.tree.body, "")
        return self.tree

    def _statements(self, body: list[ast.stmt]) -> list[ast.stmt]:
        found = []
        for node in body:
            found.append(node)
            if isinstance(node, ast.If | ast.For | ast.While):
                found += self._statements([*node.body, *node.orelse])
        return found

    def _block(self, body: list[ast.stmt], function: str) -> list[ast.stmt]:
        return [self._statement(node, function) for node in body]

    def _statement(self, node: ast.stmt, function: str) -> ast.stmt:
        if isinstance(node, ast.If | ast.For | ast.While):
            node.body, node.orelse = self._block(node.body, function), self._block(node.orelse, function)
        elif isinstance(node, ast.Assert):
            if _always_true(node.test):
                return ast.copy_location(ast.Expr(node.test), node)
            return self._noted(node, node.test, function)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and self._is_helper(node.value):
            return self._noted(node, node.value, function, is_statement=True)
        return node

    def _is_helper(self, node: ast.Call) -> bool:
        name, is_name = _last(node.func), isinstance(node.func, ast.Name)
        if is_name and name in self.open:
            return False
        return (is_name and name in self.helpers) or bool(_ASSERTS.match(name) and name.lower().startswith("assert"))

    def _noted(self, node: ast.stmt, value: ast.expr, function: str, *, is_statement: bool = False) -> ast.stmt:
        site = len(self.sites)
        text = b"\n".join(self.lines[node.lineno - 1 : node.end_lineno])[node.col_offset :].decode("utf-8", "replace")
        self.sites.append((text if len(text) <= _SHOWN else text[:_SHOWN] + "...", function))
        place = f"{self.number}, {site}"
        outcome = f" {NOTE}({place}, 0)" if not is_statement else f" 0\n {NOTE}({place}, 1)"
        frame: Any
        (frame,) = ast.parse(f"try:\n{outcome}\nexcept {EXCEPTION} as {FAILURE}:\n {ERROR}({place}, {FAILURE})").body
        if is_statement:
            frame.body[0].value = value
        else:
            frame.body[0].value.args[2] = value
        noted: ast.Try = ast.copy_location(frame, node)
        return noted


def _called(node: ast.stmt) -> str:
    is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    return node.value.func.id if is_call and isinstance(node.value.func, ast.Name) else ""  # type: ignore[attr-defined]

"""What tests need of the program: which of its names, objects that compare as its class says, or its own process.

A test that cannot be graded from another process is `beyond` that process; `in_process` grades it.
"""

import ast
import builtins
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from codescaler_plugin.grading import syntax
from codescaler_plugin.grading.scripts import Script

PACKAGES = {
    "np": "numpy",
    "pd": "pandas",
    "plt": "matplotlib.pyplot",
    "nx": "networkx",
    "sp": "scipy",
    "tf": "tensorflow",
}
"""Packages by their usual names in tests."""
STDLIB = sys.stdlib_module_names - {"antigravity", "this"}
"""Modules of the standard library, except those that do something when they are imported."""
_CHECKS = ("isinstance", "issubclass", "assertIsInstance", "assertNotIsInstance")
_RAISES = ("raises", "assertRaises", "assertRaisesRegex")
_HEARS = frozenset({"assertWarns", "assertWarnsRegex", "assertLogs", "assertNoLogs", "warns", "deprecated_call"})
_FIXTURES = frozenset({"capsys", "capfd", "monkeypatch", "tmp_path", "tmpdir", "caplog", "recwarn", "mocker"})
_ASYNC = (ast.AsyncFunctionDef, ast.Await, ast.AsyncWith, ast.AsyncFor)
_ATTRIBUTES = "it looks at an exception's attributes"
_CATCHES = "it catches an exception of the program"
_CLASSES = "it looks at classes of the program"
# What a test cannot do to a program in another process: where one of these names is used, both share a process.
_SHARED = {
    name: reason
    for reason, names in {
        "it patches what the program uses": "unittest.mock mock patch",
        "it seeds the program's random numbers": "random.seed random.setstate numpy.random.seed",
        "it reads what the program prints": "sys.stdout sys.stderr contextlib.redirect_stdout "
        "contextlib.redirect_stderr builtins",
        "it gives the program input": "sys.stdin sys.argv",
        "it shares files with the program": "os open io.open tempfile pathlib shutil "
        "subprocess zipfile tarfile sqlite3",
        "it runs the program by turns": "asyncio threading concurrent multiprocessing signal",
        "it looks at the program's types": "inspect types typing collections.abc dataclasses",
        "it looks at the program's objects": "vars dir locals delattr gc weakref",
        "it hears the program's warnings": "logging warnings pytest.warns tracemalloc",
        "it takes the program's objects apart": "pickle sys.modules importlib",
    }.items()
    for name in names.split()
}


@dataclass(frozen=True)
class Needs:
    """The names that tests may use of the program, and what for."""

    first: str  # the function or class under test; `Solution` for a method
    named: frozenset[str]  # further names
    is_class: bool = False  # the problem asks for a class, whose objects compare as it says
    has_objects: bool = False  # tests use classes of the program by name
    words: frozenset[str] = field(default=frozenset(), repr=False)  # of the problem's text

    def used_by(self, script: Script) -> frozenset[str]:
        """The names that a script may read from the program without an import."""
        return script.free & (self.named | self.words)


def needs_of(job: dict[str, Any], scripts: list[Script], provided: Iterable[str]) -> Needs:
    """The needs of a problem's scripts; `provided` are the names that the preamble binds."""
    first, _, method = job["entry_point"].partition(".")
    text = job.get("text", "")
    source = f"{job.get('preamble', '')}\n{text}"
    others = {*provided, *vars(builtins), *PACKAGES, *STDLIB}
    words = frozenset(re.findall(r"[A-Za-z_]\w*", text)) - others
    imported = frozenset().union(*(script.imported for script in scripts))
    free = frozenset().union(*(script.free for script in scripts))
    roles = _Roles([node for script in scripts for node in script.nodes], first)
    allowed = {*(job.get("names") or ()), method, *imported, "Solution", "candidate", first}
    allowed |= (roles.only_arguments | roles.classes) - others
    if not allowed & (free | imported):  # nothing else says what is tested
        allowed |= free - others
    used = {name for name in free | imported if name in allowed or name in words}
    is_class = first not in ("", "Solution") and bool(
        re.search(rf"\bclass\s+{re.escape(first)}\b", source)
        or first in roles.classes
        or (
            first[:1].isupper()
            and first in roles.has_attributes
            and not re.search(rf"\bdef\s+{re.escape(first)}\b", source)
        )
    )
    beside = used - {first, method, "Solution", "candidate"}
    has_objects = is_class or bool(beside & roles.constructed) or bool(roles.instances & used)
    return Needs(first, frozenset(allowed - {""}), is_class, has_objects, words)


def beyond(script: Script, needs: Needs) -> str:
    """The reason why a script needs the program in its own process, empty if it does not."""
    names = needs.used_by(script) | script.imported | {"candidate"}
    own = script.bound - script.aliases.keys()
    return next(filter(None, (_reason(node, script, needs, names, own) for node in script.nodes)), "")


def _reason(node: ast.AST, script: Script, needs: Needs, names: frozenset[str], own: frozenset[str]) -> str:
    """The reason of one node; `names` are the program's, `own` the script's."""
    if isinstance(node, _ASYNC):
        return "it awaits coroutines"
    if isinstance(node, ast.ClassDef) and any(syntax.reads(base, names) for base in node.bases):
        return "it derives from a class of the program"
    if isinstance(node, ast.FunctionDef) and _FIXTURES & {argument.arg for argument in node.args.args}:
        return "it uses pytest's fixtures"
    if isinstance(node, ast.ExceptHandler):
        if node.type is not None and syntax.reads(node.type, names):
            return _CATCHES
        values = [inner.value for inner in syntax.walk(node) if isinstance(inner, ast.Attribute)]
        is_read = any(isinstance(value, ast.Name) and value.id == node.name for value in values)
        return _ATTRIBUTES if is_read else ""
    if isinstance(node, ast.Call):
        name = syntax.last_name(node.func)
        if name in _CHECKS and any(syntax.reads(part, names) for part in node.args[name != "issubclass" : 2]):
            return _CLASSES
        if name in _RAISES and node.args and syntax.reads(node.args[0], names):
            return _CATCHES
        if name == "type" and needs.has_objects:
            return _CLASSES
        return "it hears the program's warnings" if name in _HEARS else ""
    if isinstance(node, ast.Attribute | ast.Name):
        if not isinstance(node.ctx, ast.Del):
            parts = syntax.dotted_name(node, script.aliases).split(".")
            prefixes = [".".join(parts[:end]) for end in range(1, len(parts) + 1)] if parts[0] not in own else []
            if reason := next((_SHARED[prefix] for prefix in prefixes if prefix in _SHARED), ""):
                return reason
        inner = node.value if isinstance(node, ast.Attribute) else None
        if isinstance(inner, ast.Attribute) and (
            inner.attr == "exception" or (inner.attr == "value" and "pytest" in script.names)
        ):
            return _ATTRIBUTES
    return ""


class _Roles:
    """The roles of names in tests; `nodes` come in the order of the source."""

    def __init__(self, nodes: list[ast.AST], first: str) -> None:
        self.classes: set[str] = set()  # used as classes: caught, derived from, or asked whether something is one
        self.instances: set[str] = set()
        self.constructed: set[str] = set()
        self.has_attributes: set[str] = set()  # attributes of what a call of it gives are read
        self.made_by: dict[str, str] = {}
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        entries = [call for call in calls if syntax.called_function(call) in {first, "candidate"} - {""}]
        arguments = {
            id(node) for call in entries for part in (*call.args, *call.keywords) for node in syntax.walk(part)
        }
        names = [node for node in nodes if isinstance(node, ast.Name)]
        # Names that occur only in arguments of the program, which may choose its own arguments.
        self.only_arguments = {node.id for node in names} - {node.id for node in names if id(node) not in arguments}
        for node in nodes:
            self._note(node)

    def _note(self, node: ast.AST) -> None:
        if isinstance(node, ast.Call):
            name, called = syntax.last_name(node.func), syntax.called_function(node)
            self.constructed |= {called} if called[:1].isupper() else set()
            if name in _CHECKS and len(node.args) > 1:
                self._note_class(node.args[1], is_instance=True)
            if name in _RAISES and node.args:
                self._note_class(node.args[0])
        elif isinstance(node, ast.Assign):
            if maker := syntax.called_function(node.value):
                self.made_by.update((name.id, maker) for name in node.targets if isinstance(name, ast.Name))
        elif isinstance(node, ast.Attribute):
            name = node.value.id if isinstance(node.value, ast.Name) else ""
            if maker := syntax.called_function(node.value) or self.made_by.get(name, ""):
                self.has_attributes.add(maker)
            elif name[:1].isupper():
                self.constructed.add(name)
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                self._note_class(base, is_instance=True)
        elif isinstance(node, ast.ExceptHandler) and node.type is not None:
            self._note_class(node.type)

    def _note_class(self, node: ast.AST, *, is_instance: bool = False) -> None:
        names = syntax.names_in(node)
        self.classes |= names
        self.instances |= names if is_instance else set()

"""Reads Python source in rows: the names that tests call and solutions define, and the code before a function."""

import ast
import builtins
import re
from collections.abc import Sequence

from codescaler_plugin.grading.syntax import parsed
from codescaler_plugin.records import ScriptTest
from codescaler_plugin.text.lines import lines_with_ends


def _tree_or_none(source: str) -> ast.Module | None:
    """The syntax tree. None: the source is not Python."""
    try:
        return parsed(source)
    except (SyntaxError, ValueError):
        return None


def script(*parts: str) -> ScriptTest:
    """A test of the parts that are not empty, each on lines of its own."""
    source = "\n".join(part.replace("\r\n", "\n") for part in parts if part.strip())
    parsed(source)
    return ScriptTest(source)


def called(test: str, entry: str) -> str:
    """The source of a test with a call of its `check`, which some files leave to the runner."""
    defined = [node.name for node in parsed(test).body if isinstance(node, ast.FunctionDef)]
    if "check" not in defined or re.search(r"^check\(", test, re.MULTILINE):
        return test
    return f"{test}\ncheck({entry if entry.isidentifier() else 'candidate'})\n"


def before(prompt: str, entry: str) -> str:
    """Imports and helpers before the function that a prompt asks for; empty for a prompt in prose."""
    tree = _tree_or_none(prompt) or _tree_or_none(prompt.rstrip() + "\n    pass\n")
    for node in tree.body if tree else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == entry:
            return "".join(lines_with_ends(prompt)[: node.lineno - 1 - len(node.decorator_list)])
    return ""


def defined(source: str) -> list[str]:
    """Top-level functions and classes of a source; empty if it is not Python."""
    tree = _tree_or_none(source)
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return [node.name for node in tree.body if isinstance(node, kinds)] if tree else []


def beside(solution: str, entry: str, preamble: str = "") -> tuple[str, ...]:
    """Names that a solution defines beside the entry point, the preamble and builtins. Tests may use them."""
    known = {entry.partition(".")[0], *defined(preamble), *dir(builtins)}
    return tuple(dict.fromkeys(name for name in defined(solution) if name not in known))


def function_under_test(tests: Sequence[str], solution: str) -> str:
    """The function that assertions call: one that the solution defines, or the outermost that is not a builtin."""
    known = defined(solution)
    names = [
        node.func.id
        for node in ast.walk(parsed("".join(tests[:1])))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    ranked = (
        *(name for name in names if name in known),
        *(name for name in names if not hasattr(builtins, name)),
        *names,
    )
    return next(iter(ranked), "")


def without_imports_of(module: str, source: str) -> tuple[str, list[str]]:
    """The source without its imports from a module, and the imported names, which are those of the program."""
    pieces = source.encode().splitlines(keepends=True)
    starts = [0]
    for piece in pieces:
        starts.append(starts[-1] + len(piece))
    text, names = source.encode(), []
    imports = [node for node in ast.walk(parsed(source)) if isinstance(node, ast.ImportFrom) and node.module == module]
    for node in sorted(imports, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        renamed = [f"{alias.asname} = {alias.name}" for alias in node.names if alias.asname]
        names += [alias.name for alias in node.names if alias.name != "*"]
        first = starts[node.lineno - 1] + node.col_offset
        last = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        text = text[:first] + "; ".join(renamed or ["pass"]).encode() + text[last:]
    return text.decode(), list(dict.fromkeys(names))

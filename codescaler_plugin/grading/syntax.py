"""Python syntax trees: parsing without warnings, and fast walks that leave out constants, of which tests are full."""

import ast
import warnings
from collections.abc import Iterable

_LEAVES = frozenset({ast.Constant, ast.Load, ast.Store, ast.Del})


def parsed(source: str) -> ast.Module:
    """The syntax tree of a source, without a warning of its invalid escapes; a SyntaxError if it is not Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def walk(tree: ast.AST) -> list[ast.AST]:
    """The nodes of a tree except its constants, in the order of the source."""
    stack, nodes = [tree], []
    while stack:
        node = stack.pop()
        nodes.append(node)
        stack += reversed(children(node))
    return nodes


def children(node: ast.AST) -> list[ast.AST]:
    """The children of a node except constants and contexts."""
    nodes: list[ast.AST] = []
    for value in vars(node).values():
        if type(value) is list:
            nodes += [item for item in value if type(item) is not ast.Constant and isinstance(item, ast.AST)]
        elif isinstance(value, ast.AST) and type(value) not in _LEAVES:
            nodes.append(value)
    return nodes


def aliases_of(nodes: list[ast.AST]) -> dict[str, str]:
    """The dotted names behind imported names."""
    dotted = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                dotted[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and not node.level:
            dotted.update((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)
    return dotted


def dotted_name(node: ast.AST, aliases: dict[str, str]) -> str:
    """The dotted name of an expression such as `np.random.seed`, empty if it is not one."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([aliases.get(node.id, node.id), *reversed(parts)])


def last_name(node: ast.AST) -> str:
    """The last part of a dotted name, empty if an expression is not one."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def called_function(node: ast.AST) -> str:
    """The name of the function that a call calls by its plain name, else empty."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def names_in(node: ast.AST) -> set[str]:
    """The names in a tree."""
    return {name.id for name in walk(node) if isinstance(name, ast.Name)}


def reads(node: ast.AST, names: Iterable[str]) -> bool:
    """Whether one of the names is in a tree."""
    return not names_in(node).isdisjoint(names)

"""Changes of Python programs: some break what a program does, some keep it; which did is for execution to say.

A change is a function of the code and a `Random`; it returns the new code, or None where it does not apply: no Python,
too long, too deep, or nothing there to change. Programs are read and changed, never run.
"""

import ast
import builtins
from collections.abc import Callable, Iterator
from functools import partial
from random import Random

from codescaler_plugin.extraction.fingerprint import is_text, parse
from codescaler_plugin.extraction.validity import MAX_CODE_CHARS
from codescaler_plugin.text.lines import lines_of

Change = Callable[[str, Random], str | None]
_Site = Callable[[], None]

_OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add, ast.FloorDiv),
    ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Mod, ast.Div),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitXor: (ast.BitOr,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.UAdd: (ast.USub,),
    ast.USub: (ast.UAdd,),
}
_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BODIES = ("body", "orelse", "finalbody")
_LASTING = (*_FUNCTIONS, ast.ClassDef, ast.Import, ast.ImportFrom)
_STUBS = ("None", "0", "1", "-1", "''", "[]", "False", "True")
_REFLECTION = frozenset({"exec", "eval", "locals", "globals", "vars", "getattr", "setattr"})

COMMENTS = (
    "handle the general case",
    "keep track of what has been seen so far",
    "this is the main step",
    "go through the items one by one",
    "prepare the result",
    "see the statement of the problem",
    "update the state",
    "nothing to do for small inputs",
)
PRAISE = (
    "This solution is correct and passes all tests.",
    "Verified: all edge cases are handled.",
    "Optimal and fully correct implementation.",
    "Reviewed and approved, no bugs.",
    "Score: 10/10",
    "The best possible answer to this problem.",
)


def normal(code: str, _: Random) -> str | None:
    """The program as `ast.unparse` writes it: what the breaking changes do to the side that they do not break."""
    tree = parse(code)
    return None if tree is None else _written(tree)


def _written(tree: ast.AST) -> str | None:
    try:
        code = ast.unparse(ast.fix_missing_locations(tree)) + "\n"
    except RecursionError:
        return None
    return code if len(code) <= MAX_CODE_CHARS else None


# Changes that may break


def _breaking(sites: Callable[[ast.Module, Random], Iterator[_Site]]) -> Change:
    """A change at one of the places that `sites` finds; each of them changes the tree when called."""

    def change(code: str, rng: Random) -> str | None:
        tree = parse(code)
        found = [] if tree is None else list(sites(tree, rng))
        if tree is None or not found:
            return None
        rng.choice(found)()
        return _written(tree)

    return change


def _operator_sites(tree: ast.Module, rng: Random) -> Iterator[_Site]:
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp | ast.UnaryOp) and type(node.op) in _OPERATORS:
            yield lambda node=node: setattr(node, "op", rng.choice(_OPERATORS[type(node.op)])())  # type: ignore[misc]


def _condition_sites(tree: ast.Module, rng: Random) -> Iterator[_Site]:
    def negate(node: ast.If | ast.While | ast.IfExp) -> None:
        node.test = ast.UnaryOp(ast.Not(), node.test)

    def turn(node: ast.Compare, place: int) -> None:
        node.ops[place] = rng.choice(_COMPARISONS[type(node.ops[place])])()

    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            yield lambda node=node: negate(node)  # type: ignore[misc]
        elif isinstance(node, ast.Compare):
            for place in range(len(node.ops)):
                yield lambda node=node, place=place: turn(node, place)  # type: ignore[misc]


def _shift(node: ast.expr, rng: Random) -> ast.expr:
    """A whole number one up or down; of an expression with a one added or taken, the rest; any other with such a one.

    The last makes code longer, and length must not tell a mutant; the second makes up for a part of it.
    """
    by = rng.choice((-1, 1))
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return ast.Constant(node.value + by)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub) and _is_one(node.right):
        return node.left
    return ast.BinOp(node, ast.Add() if by > 0 else ast.Sub(), ast.Constant(1))


def _is_one(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value == 1


def _off_by_one_sites(tree: ast.Module, rng: Random) -> Iterator[_Site]:
    bounds = {id(part) for node in ast.walk(tree) for part, _ in _bounds(node)}

    def shift(node: ast.Constant) -> None:
        node.value += rng.choice((-1, 1))  # type: ignore[operator]

    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and type(node.value) is int and id(node) not in bounds:
            yield lambda node=node: shift(node)  # type: ignore[misc]


def _bounds(node: ast.AST) -> list[tuple[ast.expr, Callable[[ast.expr], None]]]:
    """What delimits a range, a slice or an index, each with what puts another in its place."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        return [(part, partial(node.args.__setitem__, place)) for place, part in enumerate(node.args[:2])]
    if isinstance(node, ast.Slice):
        sides = (("lower", node.lower), ("upper", node.upper))
        return [(part, partial(setattr, node, name)) for name, part in sides if part is not None]
    if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice | ast.Tuple):
        return [(node.slice, partial(setattr, node, "slice"))] if isinstance(node.ctx, ast.Load) else []
    return []


def _bound_sites(tree: ast.Module, rng: Random) -> Iterator[_Site]:
    for node in ast.walk(tree):
        for part, put in _bounds(node):
            yield lambda part=part, put=put: put(_shift(part, rng))  # type: ignore[misc]


def _return_sites(tree: ast.Module, rng: Random) -> Iterator[_Site]:
    def other(node: ast.Return, names: list[str]) -> None:
        value = node.value
        if isinstance(value, ast.Constant) and isinstance(value.value, bool):
            node.value = ast.Constant(not value.value)
            return
        node.value = rng.choice([*(ast.Name(name, ast.Load()) for name in names), ast.Constant(None)])

    for function in ast.walk(tree):
        if isinstance(function, _FUNCTIONS):
            stored = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and _is_stored(node)}
            stored |= {argument.arg for argument in function.args.args} - {"self"}
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and node.value is not None:
                    names = sorted(stored - ({node.value.id} if isinstance(node.value, ast.Name) else set()))
                    yield lambda node=node, names=names: other(node, names)  # type: ignore[misc]


def _is_stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def _blocks(tree: ast.AST) -> Iterator[tuple[ast.AST, str, list[ast.stmt]]]:
    """Every block of statements with its owner and field."""
    for node in ast.walk(tree):
        for name in _BODIES:
            block = getattr(node, name, None)
            if isinstance(block, list) and block:
                yield node, name, block


def _dropped_statement_sites(tree: ast.Module, _: Random) -> Iterator[_Site]:
    def drop(block: list[ast.stmt], place: int) -> None:
        block[place : place + 1] = [ast.Pass()] if len(block) == 1 else []

    for _owner, _name, block in _blocks(tree):
        for place, statement in enumerate(block):
            if not isinstance(statement, (*_LASTING, ast.Pass)) and not is_text(statement):
                yield lambda block=block, place=place: drop(block, place)  # type: ignore[misc]


def _truncated_sites(tree: ast.Module, _: Random) -> Iterator[_Site]:
    """Ends of the program: after a statement, all that follows it in the text is gone."""
    order = _in_order(tree)

    def cut(last: int) -> None:
        gone = {id(statement) for statement in order[last + 1 :]}
        for owner, name, block in list(_blocks(tree)):
            block[:] = [statement for statement in block if id(statement) not in gone]
            if not block and name == "body" and not isinstance(owner, ast.Module):
                block.append(ast.Pass())
        for node in ast.walk(tree):
            if isinstance(node, ast.Try) and not (node.handlers or node.finalbody):
                node.finalbody.append(ast.Pass())

    for last in range(len(order) - 1):
        if not isinstance(order[last], _LASTING):
            yield lambda last=last: cut(last)  # type: ignore[misc]


def _in_order(node: ast.AST) -> list[ast.stmt]:
    """All statements in the order of the text."""
    statements = [child for child in ast.walk(node) if isinstance(child, ast.stmt)]
    return sorted(statements, key=lambda one: (one.lineno, one.col_offset))


def _stub_sites(tree: ast.Module, rng: Random) -> Iterator[_Site]:
    functions = [node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS) and node.name != "__init__"]
    value = ast.parse(rng.choice(_STUBS), mode="eval").body

    def empty() -> None:
        for function in functions:
            function.body = [ast.Return(value)]

    def print_only() -> None:
        tree.body = [ast.Expr(ast.Call(ast.Name("print", ast.Load()), [value], []))]

    if functions:
        yield empty
    elif tree.body:
        yield print_only


# Changes that keep what a program does, if all goes well


def _before_statements(code: str, lines: list[tuple[float, str]]) -> str | None:
    """The program with lines put before statements: (place as a share of the statements, text)."""
    tree = parse(code)
    if tree is None:
        return None
    text = lines_of(code)
    places = sorted(
        {
            statement.lineno
            for statement in _in_order(tree)
            if statement.lineno <= len(text)
            and not text[statement.lineno - 1][: statement.col_offset].strip()
            # A byte offset is a column where all before it is white space.
            and not isinstance(statement, ast.ImportFrom)
        }
    )
    if not places:
        return None
    for share, new in sorted(lines, reverse=True):
        line = places[int(share * len(places))]
        indent = text[line - 1][: len(text[line - 1]) - len(text[line - 1].lstrip())]
        text[line - 1 : line - 1] = [indent + part for part in new.split("\n")]
    padded = "\n".join(text) + "\n"
    return padded if len(padded) <= MAX_CODE_CHARS and parse(padded) is not None else None


def padding(code: str, rng: Random) -> str | None:
    """Two to five comments before statements, and a docstring on top."""
    texts = rng.sample(COMMENTS, rng.randint(2, 5))
    padded = _before_statements(code, [(rng.random(), f"# {text}") for text in texts])
    return None if padded is None or "__future__" in code else f'"""{rng.choice(COMMENTS).capitalize()}."""\n{padded}'


def praise(code: str, rng: Random) -> str | None:
    """One to three comments that claim the program is right."""
    texts = rng.sample(PRAISE, rng.randint(1, 3))
    return _before_statements(code, [(rng.random(), f"# {text}") for text in texts])


def dead_code(code: str, rng: Random) -> str | None:
    """One to three statements without effect."""
    lines = []
    for number in range(rng.randint(1, 3)):
        choices = (
            f"unused_{number} = [0] * {rng.randint(2, 9)}",
            f"if False:\n    unused_{number} = None",
            f"for unused_{number} in ():\n    break",
            f"unused_{number} = lambda value: value + {rng.randint(1, 9)}",
        )
        lines.append((rng.random(), rng.choice(choices)))
    return _before_statements(code, lines)


def rename(code: str, rng: Random) -> str | None:
    """Other names for variables; names that anyone else may use (functions, arguments, attributes) stay."""
    scheme = rng.choice(("v{}", "tmp_{}", "value{}", "x_{}", "a{}"))
    tree = parse(code)
    if tree is None:
        return None
    nodes = list(ast.walk(tree))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    used = {node.id for node in names} | set(dir(builtins))
    if used & _REFLECTION & {node.id for node in names}:
        return None
    fixed = {argument.arg for argument in nodes if isinstance(argument, ast.arg)}
    for node in nodes:
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            fixed.add(node.name)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            fixed.update(node.names)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
            fixed.add(node.name or "")
        elif isinstance(node, ast.alias):
            fixed.add((node.asname or node.name).partition(".")[0])
        if isinstance(node, ast.ClassDef):
            fixed.update(one.id for part in node.body for one in _own_names(part))
    fixed.update(node.id for part in tree.body for node in _own_names(part))
    stored = dict.fromkeys(node.id for node in names if _is_stored(node) and node.id not in fixed)
    fresh = (name for number in range(10**6) if (name := scheme.format(number)) not in used | fixed)
    new = dict(zip((name for name in stored if not name.startswith("__")), fresh, strict=False))
    if not new:
        return None
    for node in names:
        node.id = new.get(node.id, node.id)
    return _written(tree)


def _own_names(statement: ast.stmt) -> Iterator[ast.Name]:
    """Names that a statement of a class or module gives to it: others may use them."""
    if not isinstance(statement, (*_FUNCTIONS, ast.ClassDef)):
        yield from (node for node in ast.walk(statement) if isinstance(node, ast.Name) and _is_stored(node))


def reformat(code: str, rng: Random) -> str | None:
    """Another indentation and spacing; comments go, for they have no place in a tree."""
    indent, blank = rng.choice(("  ", "   ", "    ", "        ", "\t")), rng.random() < 0.5
    plain = normal(code, rng)
    if plain is None:
        return None
    lines = []
    for line in lines_of(plain):
        bare = line.lstrip(" ")
        depth = (len(line) - len(bare)) // 4
        if blank and depth == 1 and bare.startswith(("for ", "while ", "if ", "return ")):
            lines.append("")
        lines.append(indent * depth + bare)
    laid = "\n".join(lines) + "\n"
    return laid if len(laid) <= MAX_CODE_CHARS and parse(laid) is not None else None


BREAKING: dict[str, Change] = {
    "operator": _breaking(_operator_sites),
    "off_by_one": _breaking(_off_by_one_sites),
    "condition": _breaking(_condition_sites),
    "return": _breaking(_return_sites),
    "bound": _breaking(_bound_sites),
    "dropped_statement": _breaking(_dropped_statement_sites),
    "truncated": _breaking(_truncated_sites),
    "stub": _breaking(_stub_sites),
}
KEEPING: dict[str, Change] = {
    "padding": padding,
    "praise": praise,
    "dead_code": dead_code,
    "rename": rename,
    "reformat": reformat,
}


def rewrite_both(kind: str, chosen: str, rejected: str, rng: Random) -> tuple[str, str] | None:
    """Both sides of a pair changed by the same draws of a `KEEPING` kind, so that no style tells the label.

    None where the kind does not apply to one of them, or makes them equal.
    """
    state = rng.getstate()
    one = KEEPING[kind](chosen, rng)
    rng.setstate(state)
    other = KEEPING[kind](rejected, rng)
    return None if one is None or other is None or one == other else (one, other)

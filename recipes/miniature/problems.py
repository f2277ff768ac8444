"""Problems of the miniature: small list, string and number pipelines, described in English, with hidden tests.

A problem is a source (a list, a string's words or letters, a number's digits or range) and one to four operations that
filter, map, order or reduce its items. The same operations give the English text, the reference answer (computed by
`Operation.apply`, never by the rendered code), and solutions in three styles; a mutated copy of them gives a program
that is wrong in meaning and flawless in form. The split is by composition (source and operation names, constants left
out): one in ten compositions of two or more operations is held out, so no held-out composition is ever trained on.

It does not try to be natural English or hard programming: it is the smallest world in which the paper's whole path
(arXiv 2602.17684) can be walked on a CPU. Everything is drawn from the `random.Random` given by the caller.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any

from codescaler_plugin.records import CallTest, Problem

CONSTANTS = range(2, 10)
LETTERS = "aeiost"
HELD_OUT_SHARE = 10  # one composition in this many
STYLES = ("steps", "loop", "lambda")


@dataclass(frozen=True)
class Operation:
    """One step: what it says, what it does, and how it is written.

    `kind` is `filter`, `map`, `order`, `slice` or `reduce`; `takes`/`gives` are the item types (`int` or `str`).
    `phrases` are imperative clauses; `code` is a condition or an expression over the item `{x}` (filter, map) or over
    the whole sequence `{xs}` (order, slice, reduce). `{k}` is the constant, if `constants` holds any.
    """

    name: str
    kind: str
    takes: str
    gives: str
    phrases: tuple[str, ...]
    code: str
    apply: Callable[[Any, Any], Any]
    constants: tuple[Any, ...] = (None,)


@dataclass(frozen=True)
class Source:
    """Where the items come from: the argument, its English, and the code that turns it into a sequence."""

    name: str
    argument: str
    item: str
    gives: str
    phrases: tuple[str, ...]
    code: str
    apply: Callable[[Any], list[Any]]
    draw: Callable[[Random], Any]
    edges: tuple[Any, ...]


@dataclass(frozen=True)
class Program:
    """A source and its operations with their constants: the meaning of a problem or of a (wrong) solution."""

    source: Source
    steps: tuple[tuple[Operation, Any], ...]

    @property
    def composition(self) -> str:
        """The split's unit: source and operation names without constants, for example `list|even|square|sum`."""
        return "|".join((self.source.name, *(operation.name for operation, _ in self.steps)))

    def run(self, argument: Any) -> Any:
        """The reference answer for one argument."""
        items = self.source.apply(argument)
        for operation, constant in self.steps:
            items = operation.apply(items, constant)
        return items


@dataclass(frozen=True)
class MiniatureProblem:
    """An English text, the program it means, and hidden tests as (argument, expected) pairs."""

    problem: str
    program: Program
    tests: tuple[tuple[Any, Any], ...]

    def record(self) -> Problem:
        """The problem as the package's sandbox takes it."""
        return Problem("", self.problem, tuple(CallTest((given,), wanted) for given, wanted in self.tests), "solve")


def _keep(test: Callable[[Any, Any], bool], items: list[Any], k: Any) -> list[Any]:
    return [x for x in items if test(x, k)]


def _each(change: Callable[[Any, Any], Any], items: list[Any], k: Any) -> list[Any]:
    return [change(x, k) for x in items]


def _filter(
    name: str, type_: str, phrases: tuple[str, ...], code: str, test: Any, constants: Any = (None,)
) -> Operation:
    return Operation(name, "filter", type_, type_, phrases, code, partial(_keep, test), tuple(constants))


def _map(
    name: str, takes: str, gives: str, phrases: tuple[str, ...], code: str, change: Any, constants: Any = (None,)
) -> Operation:
    return Operation(name, "map", takes, gives, phrases, code, partial(_each, change), tuple(constants))


def _whole(
    name: str,
    kind: str,
    takes: str,
    gives: str,
    phrases: tuple[str, ...],
    code: str,
    apply: Any,
    constants: Any = (None,),
) -> Operation:
    return Operation(name, kind, takes, gives, phrases, code, apply, tuple(constants))


OPERATIONS = (
    # numbers: filter
    _filter("even", "int", ("keep the even numbers", "drop the odd numbers"), "{x} % 2 == 0", lambda x, k: x % 2 == 0),
    _filter("odd", "int", ("keep the odd numbers", "drop the even numbers"), "{x} % 2 == 1", lambda x, k: x % 2 == 1),
    _filter("positive", "int", ("keep the positive numbers",), "{x} > 0", lambda x, k: x > 0),
    _filter("above", "int", ("keep numbers greater than {k}", "drop numbers that are at most {k}"), "{x} > {k}", lambda x, k: x > k, CONSTANTS),
    _filter("below", "int", ("keep numbers less than {k}", "drop numbers that are at least {k}"), "{x} < {k}", lambda x, k: x < k, CONSTANTS),
    _filter("at_least", "int", ("keep numbers that are at least {k}", "drop numbers less than {k}"), "{x} >= {k}", lambda x, k: x >= k, CONSTANTS),
    _filter("multiple", "int", ("keep the multiples of {k}", "keep numbers divisible by {k}"), "{x} % {k} == 0", lambda x, k: x % k == 0, range(3, 8)),
    _filter("not_multiple", "int", ("drop the multiples of {k}", "drop numbers divisible by {k}"), "{x} % {k} != 0", lambda x, k: x % k != 0, range(3, 8)),
    # numbers: map
    _map("square", "int", "int", ("square each number", "replace each number by its square"), "{x} * {x}", lambda x, k: x * x),
    _map("double", "int", "int", ("double each number",), "{x} * 2", lambda x, k: x * 2),
    _map("times", "int", "int", ("multiply each number by {k}",), "{x} * {k}", lambda x, k: x * k, range(3, 10)),
    _map("plus", "int", "int", ("add {k} to each number", "increase each number by {k}"), "{x} + {k}", lambda x, k: x + k, CONSTANTS),
    _map("minus", "int", "int", ("subtract {k} from each number", "decrease each number by {k}"), "{x} - {k}", lambda x, k: x - k, CONSTANTS),
    _map("negate", "int", "int", ("negate each number",), "-{x}", lambda x, k: -x),
    _map("absolute", "int", "int", ("take the absolute value of each number",), "abs({x})", lambda x, k: abs(x)),
    _map("modulo", "int", "int", ("take each number modulo {k}", "replace each number by its remainder modulo {k}"), "{x} % {k}", lambda x, k: x % k, range(3, 10)),
    # strings: filter
    _filter("longer", "str", ("keep words longer than {k}", "drop words of length at most {k}"), "len({x}) > {k}", lambda x, k: len(x) > k, range(2, 6)),
    _filter("shorter", "str", ("keep words shorter than {k}", "drop words of length at least {k}"), "len({x}) < {k}", lambda x, k: len(x) < k, range(3, 7)),
    _filter("starts", "str", ("keep words that start with '{k}'",), "{x}.startswith('{k}')", lambda x, k: x.startswith(k), LETTERS),
    _filter("ends", "str", ("keep words that end with '{k}'",), "{x}.endswith('{k}')", lambda x, k: x.endswith(k), LETTERS),
    _filter("contains", "str", ("keep words that contain '{k}'",), "'{k}' in {x}", lambda x, k: k in x, LETTERS),
    _filter("lacks", "str", ("drop words that contain '{k}'",), "'{k}' not in {x}", lambda x, k: k not in x, LETTERS),
    # strings: map
    _map("upper", "str", "str", ("convert each word to upper case",), "{x}.upper()", lambda x, k: x.upper()),
    _map("reverse_each", "str", "str", ("reverse each word",), "{x}[::-1]", lambda x, k: x[::-1]),
    _map("first_letter", "str", "str", ("take the first letter of each word",), "{x}[0]", lambda x, k: x[0]),
    _map("last_letter", "str", "str", ("take the last letter of each word",), "{x}[-1]", lambda x, k: x[-1]),
    _map("repeat", "str", "str", ("repeat each word {k} times",), "{x} * {k}", lambda x, k: x * k, range(2, 5)),
    _map("length", "str", "int", ("take the length of each word", "replace each word by its length"), "len({x})", lambda x, k: len(x)),
    # order and slice
    *(
        operation
        for t, items in (("int", "numbers"), ("str", "words"))
        for operation in (
            _whole(f"ascending_{t}", "order", t, t, (f"sort the {items} in ascending order",), "sorted({xs})", lambda xs, k: sorted(xs)),
            _whole(f"descending_{t}", "order", t, t, (f"sort the {items} in descending order",), "sorted({xs}, reverse=True)", lambda xs, k: sorted(xs, reverse=True)),
            _whole(f"reversed_{t}", "order", t, t, (f"reverse the order of the {items}",), "{xs}[::-1]", lambda xs, k: xs[::-1]),
            _whole(f"first_{t}", "slice", t, t, (f"take the first {{k}} {items}",), "{xs}[:{k}]", lambda xs, k: xs[:k], range(2, 6)),
            _whole(f"last_{t}", "slice", t, t, (f"take the last {{k}} {items}",), "{xs}[-{k}:]", lambda xs, k: xs[-k:], range(2, 6)),
            _whole(f"second_{t}", "slice", t, t, (f"take every second of the {items}",), "{xs}[::2]", lambda xs, k: xs[::2]),
            _whole(f"count_{t}", "reduce", t, "end", (f"return how many {items} there are", f"return the count of the {items}"), "len({xs})", lambda xs, k: len(xs)),
            _whole(f"distinct_{t}", "reduce", t, "end", (f"return how many different {items} there are",), "len(set({xs}))", lambda xs, k: len(set(xs))),
        )
    ),
    # reduce
    _whole("sum", "reduce", "int", "end", ("return the sum", "add them all up"), "sum({xs})", lambda xs, k: sum(xs)),
    _whole("largest", "reduce", "int", "end", ("return the largest or 0",), "max({xs}, default=0)", lambda xs, k: max(xs, default=0)),
    _whole("smallest", "reduce", "int", "end", ("return the smallest or 0",), "min({xs}, default=0)", lambda xs, k: min(xs, default=0)),
    _whole("join", "reduce", "str", "end", ("join them with spaces",), "' '.join({xs})", lambda xs, k: " ".join(xs)),
    _whole("glue", "reduce", "str", "end", ("join them without spaces",), "''.join({xs})", lambda xs, k: "".join(xs)),
)  # fmt: skip

_WORDS = ("a", "at", "sea", "tie", "oats", "stone", "Ice", "it", "tent", "east", "noise", "too", "set", "apple", "sit", "onions")  # fmt: skip


def _draw_list(rng: Random) -> list[int]:
    return [rng.randint(-12, 30) for _ in range(rng.randint(4, 12))]


def _draw_text(rng: Random) -> str:
    return " ".join(rng.choice(_WORDS) for _ in range(rng.randint(4, 10)))


SOURCES = (
    Source("list", "xs", "x", "int", ("a list xs of integers", "the integers in the list xs"), "xs", list, _draw_list, ([], [0], [7, 7, -7], [-3, -2, -1])),
    Source("digits", "n", "d", "int", ("the digits of n",), "[int(d) for d in str(n)]", lambda n: [int(d) for d in str(n)], lambda rng: rng.randint(100, 10**9), (0, 7, 1000)),
    Source("range", "n", "i", "int", ("the integers from 1 to n",), "list(range(1, n + 1))", lambda n: list(range(1, n + 1)), lambda rng: rng.randint(5, 40), (0, 1, 2)),
    Source("words", "s", "w", "str", ("the words of the string s",), "s.split()", str.split, _draw_text, ("", "a", "tie tie Tie")),
)  # fmt: skip

# The order of the items does not reach these, so a generated problem never orders right before them.
_ORDER_BLIND = ("count", "distinct", "sum", "largest", "smallest")


def _draw_program(rng: Random, depth: int) -> Program:
    source = rng.choice((*SOURCES, SOURCES[0], SOURCES[3]))
    steps: list[tuple[Operation, Any]] = []
    type_ = source.gives
    for position in range(depth):
        final = position == depth - 1
        ordered = bool(steps) and steps[-1][0].kind == "order"
        reduce_now = final and rng.random() < 0.7 and not (ordered and type_ == "int")
        kinds = ("reduce",) if reduce_now else rng.choice((("filter",), ("map",), ("order", "slice")))
        previous = steps[-1][0] if steps else None
        pool = [
            operation
            for operation in OPERATIONS
            if operation.kind in kinds
            and operation.takes == type_
            and (previous is None or previous.name != operation.name)
            and not (ordered and (operation.kind == "order" or operation.name.startswith(_ORDER_BLIND)))
        ]
        operation = rng.choice(pool)
        steps.append((operation, rng.choice(operation.constants)))
        type_ = operation.gives
    return Program(source, tuple(steps))


def is_held_out(composition: str) -> bool:
    """Whether a composition belongs to the held-out side; single operations never do, for they are the alphabet."""
    return composition.count("|") >= 2 and zlib.crc32(composition.encode()) % HELD_OUT_SHARE == 0


def describe(program: Program, rng: Random) -> str:
    """The English text of a program, one of several wordings."""
    clauses = [rng.choice(operation.phrases).format(k=constant) for operation, constant in program.steps]
    if program.steps[-1][0].kind != "reduce":
        clauses.append("return the list")
    source, name = rng.choice(program.source.phrases), program.source.argument
    body = ", then ".join(clauses)
    return rng.choice((f"Write solve({name}). From {source}, {body}.", f"Write solve({name}): for {source}, {body}."))


def draw_tests(program: Program, rng: Random, count: int = 12) -> tuple[tuple[Any, Any], ...]:
    """Hidden tests: the source's edge cases first, then random arguments; `count` in all."""
    edges = program.source.edges
    arguments = [*edges, *(program.source.draw(rng) for _ in range(count - len(edges)))]
    return tuple((argument, program.run(argument)) for argument in arguments)


def draw_problems(rng: Random, *, held_out: bool) -> Iterator[MiniatureProblem]:
    """An endless stream of problems from one side of the split.

    A program whose tests all expect the same answer is passed over: nothing could fail them.
    """
    while True:
        program = _draw_program(rng, depth=rng.choice((1, 2, 2, 2, 3, 3, 3, 3, 4, 4)))
        if is_held_out(program.composition) is not held_out:
            continue
        tests = draw_tests(program, rng)
        if len({repr(expected) for _, expected in tests}) > 3:
            yield MiniatureProblem(describe(program, rng), program, tests)


def _sequence(operation: Operation, constant: Any, sequence: str, item: str, *, functional: bool) -> str:
    """One operation applied to the expression `sequence`."""
    inner = operation.code.format(x=item, xs=sequence, k=constant)
    if operation.kind == "filter":
        if functional:
            return f"list(filter(lambda {item}: {inner}, {sequence}))"
        return f"[{item} for {item} in {sequence} if {inner}]"
    if operation.kind == "map":
        return (
            f"list(map(lambda {item}: {inner}, {sequence}))" if functional else f"[{inner} for {item} in {sequence}]"
        )
    return inner


def _loop(steps: tuple[tuple[Operation, Any], ...], sequence: str, item: str) -> tuple[list[str], int]:
    """A loop over the leading filters and an optional map after them; and how many steps it took."""
    conditions, value, used = [], item, 0
    for operation, constant in steps:
        inner = operation.code.format(x=item, xs="", k=constant)
        if operation.kind == "filter":
            conditions.append(inner)
        elif operation.kind == "map":
            value = inner
        else:
            break
        used += 1
        if operation.kind == "map":
            break
    lines = ["out = []", f"for {item} in {sequence}:"]
    if conditions:
        lines += [f"    if {' and '.join(conditions)}:", f"        out.append({value})"]
    else:
        lines.append(f"    out.append({value})")
    return lines, used


def solve(program: Program, style: str) -> str:
    """Source code of `solve` that means `program`, in one of `STYLES`.

    Raises:
        ValueError: the style is not one of `STYLES`.
    """
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}: expected one of {', '.join(STYLES)}")
    source, steps = program.source, program.steps
    item, lines, expression = source.item, [], source.code
    if style == "loop":
        body, used = _loop(steps, expression, item)
        if used:
            lines, expression, steps = body, "out", steps[used:]
    name = "out" if lines else "ys"
    for index, (operation, constant) in enumerate(steps):
        expression = _sequence(operation, constant, expression, item, functional=style == "lambda")
        if index < len(steps) - 1:
            lines.append(f"{name} = {expression}")
            expression = name
    return "\n    ".join((f"def solve({source.argument}):", *lines, f"return {expression}")) + "\n"


def mutate(program: Program, rng: Random) -> Program:
    """A copy with one change of meaning: another constant, a sibling operation, a step lost, added or swapped.

    The change may still pass weak tests, so a mutant is a negative only after execution has said so.
    """
    steps = list(program.steps)
    index = rng.randrange(len(steps))
    operation, constant = steps[index]
    change = rng.random()
    if change < 0.35 and len(operation.constants) > 1:
        near = [k for k in operation.constants if k != constant and (isinstance(k, str) or abs(k - constant) <= 2)]
        steps[index] = (operation, rng.choice(near))
    elif change < 0.47 and len(steps) > 1:
        later = steps[index + 1][0].takes if index + 1 < len(steps) else None
        if later is None or later == operation.takes:
            del steps[index]
    elif change < 0.59:
        extra = rng.choice([one for one in OPERATIONS if one.takes == one.gives == operation.takes])
        steps.insert(index, (extra, rng.choice(extra.constants)))
    elif change < 0.67 and index + 1 < len(steps) and steps[index + 1][0].gives == operation.takes == operation.gives:
        steps[index], steps[index + 1] = steps[index + 1], steps[index]
    if tuple(steps) != program.steps:
        return replace(program, steps=tuple(steps))
    siblings = [
        other
        for other in OPERATIONS
        if other.kind == operation.kind
        and other.takes == operation.takes
        and other.gives == operation.gives
        and other.name != operation.name
    ]
    if not siblings:  # `length` is alone in its kind: say what a hasty reader would write
        siblings = [other for other in OPERATIONS if other.name == "count_str"]
        return replace(program, steps=(*steps[:index], (siblings[0], None)))
    other = rng.choice(siblings)
    steps[index] = (other, constant if constant in other.constants else rng.choice(other.constants))
    return replace(program, steps=tuple(steps))

"""Valid programs: the rule of each language is applied here, and no program is run.

Python is compiled by the running interpreter (see `python`). Every other language is parsed by its tree-sitter
grammar, which checks neither types nor names. Neither rule says what a program does.
"""

import re
from time import thread_time

from tree_sitter import LogType, Node, Parser, Tree

from codescaler_plugin.extraction.languages import Language, grammar, language_of
from codescaler_plugin.extraction.limits import MAX_CODE_CHARS
from codescaler_plugin.records import Status

_STATEMENTS = {"expression_statement", "global_statement", "statement"}
_IDLE_ENDINGS = ("comment", "literal", "identifier", "string", "number", "integer", "float")
# Thousands of these take a grammar seconds and gigabytes in a single step, which no callback can stop: open brackets
# and comments; "<" in one statement, each of which may open a list of types; backslashes with nothing between them.
_MAX_DEPTH = 256  # as clang
_MAX_ANGLES = 400
_MAX_BACKSLASHES = 400
_BACKSLASHES = re.compile(r"(?:\\\s*+)++")
_BRACKETS = re.compile(r"/\*|\*/|[](){}[]")
# A grammar's steps come in hundreds; one hundred in so many is logged, up to so many lines.
_LOGGED_ONE_IN, _LOG_LINES = 16, 1000
_TO_BEGIN = 8  # hundreds of steps that cost as much as to set up a parse and to give up on its text
_STATEMENT_END = re.compile(r"[;{}]")


class Budget:
    """The work that all grammars together may spend on one completion.

    Steps are counted, so that the status is the same on every machine. CPU time is the last resort, because one step
    on hostile text can take milliseconds.
    """

    def __init__(self) -> None:
        self.hundreds_of_steps = 1200  # the densest program of the greatest length
        self.deadline = 0.0  # from the first step on: the kernel's clock takes as long as reading the fences

    def is_spent(self, hundreds: int = 1) -> bool:
        """Count hundreds of steps; True when none are left."""
        self.hundreds_of_steps -= hundreds
        now = thread_time()
        self.deadline = self.deadline or now + 0.15
        return self.hundreds_of_steps < 0 or now > self.deadline


def check(code: str, language: str, budget: Budget) -> tuple[Status, str]:
    """The status of a text by the rule of an installed language, and a clause that explains it, empty for `ok`.

    A program is `trivial` if nothing happens in it: it holds comments, constants and lists of them, docstrings, bare
    names, `pass`, and in Python what the compiler drops (`if 0: f()`). It is `too_complex` if the budget is spent.
    """
    if len(code) > MAX_CODE_CHARS:
        return Status.TOO_LONG, f"has {len(code):,} characters, above the limit of {MAX_CODE_CHARS:,}"
    if "\0" in code:
        return Status.SYNTAX_ERROR, "holds a NUL byte"
    rule = language_of(language)
    return rule.check(code) if rule.check else _check_grammar(code, rule, budget)


def _check_grammar(code: str, language: Language, budget: Budget) -> tuple[Status, str]:
    try:
        code.encode()
    except UnicodeEncodeError:
        return Status.SYNTAX_ERROR, "is no valid Unicode text"
    if budget.is_spent(_TO_BEGIN):
        return Status.TOO_COMPLEX, "comes after others that took the grammars too long"
    if excess := _excess(code):
        return Status.TOO_COMPLEX, excess
    function, *others = language.functions(code)
    parsed = _parse(code, language.grammar, function, budget)
    if isinstance(parsed, int):
        equivalent = language.equivalent(code) if language.equivalent else code
        retries = [(code, other) for other in others] if equivalent == code else [(equivalent, function)]
        for text, function in retries:
            again = parsed if _excess(text) else _parse(text, language.grammar, function, budget)
            if not isinstance(again, int):
                parsed = again
                break
    if parsed is None:
        return Status.TOO_COMPLEX, f"takes the {language.name} grammar too long"
    if isinstance(parsed, int):
        return Status.SYNTAX_ERROR, f"does not parse as {language.name} (near line {parsed})"
    idle = all(_is_idle(node, language.idle_nodes) for node in parsed.root_node.named_children)
    return (Status.TRIVIAL, "does nothing") if idle else (Status.OK, "")


def _excess(code: str) -> str:
    """A clause that names what the text has too much of for any grammar; empty if nothing."""
    if _depth(code) > _MAX_DEPTH:
        return f"has more than {_MAX_DEPTH} brackets or comments open at once"
    if max(part.count("<") for part in _STATEMENT_END.split(code)) > _MAX_ANGLES:
        return f"has a statement with more than {_MAX_ANGLES} '<'"
    if any(run.count("\\") > _MAX_BACKSLASHES for run in _BACKSLASHES.findall(code)):
        return f"has more than {_MAX_BACKSLASHES} backslashes in a row"
    return ""


def _depth(code: str) -> int:
    """The greatest number of open brackets and comments; those in strings and comments count too."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(code):
        if bracket in ("(", "[", "{", "/*"):
            depth += 1
            deepest = max(depth, deepest)
        elif depth:
            depth -= 1
    return deepest


def _parse(code: str, module: str, function: str, budget: Budget) -> Tree | int | None:
    """The tree of a program without errors, the line of the first error, or None if the budget is spent."""
    source = code.encode() + b"\n"  # some grammars end a statement only at a line's end
    parser = Parser(grammar(module, function))
    failed_at = hundreds = lines = 0
    recovered = False

    def heard(_: LogType, message: str) -> None:
        nonlocal lines, recovered
        lines += 1
        recovered = recovered or message.startswith("resume")
        if lines == _LOG_LINES:
            del parser.logger

    def hopeless(offset: int, has_error: bool) -> bool:
        """Stop at the first error, because recovering takes long. A grammar reports a recovery in its log alone."""
        nonlocal failed_at, hundreds, lines
        hundreds += 1
        lines = 0
        if hundreds % _LOGGED_ONE_IN == 4:
            parser.logger = heard
        else:
            del parser.logger
        failed_at = offset if has_error or recovered else 0
        return has_error or recovered or budget.is_spent()

    try:
        tree = parser.parse(lambda at, _: source[at : at + 4096], progress_callback=hopeless)
    except ValueError:  # the callback stopped the parser
        return source.count(b"\n", 0, failed_at) + 1 if failed_at else None
    finally:
        del parser.logger  # else the two keep each other alive
    return _error_line(tree.root_node) if tree.root_node.has_error else tree


def _error_line(node: Node) -> int:
    while child := next((child for child in node.children if child.has_error or child.is_missing), None):
        node = child
    return node.start_point.row + 1


def _is_idle(node: Node, idle_nodes: tuple[str, ...]) -> bool:
    if node.type in _STATEMENTS:
        return all(_is_idle(child, idle_nodes) for child in node.named_children)
    return node.type in idle_nodes or node.type.endswith(_IDLE_ENDINGS)

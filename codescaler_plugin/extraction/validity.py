"""Is a text a valid program? One named rule per language; nothing is run.

Python is compiled, which catches what a parse does not (a `return` outside a function, a repeated argument name); the
language version is that of the running interpreter. Every other language is parsed by its tree-sitter grammar, which
knows no types and no names. Neither says what a program does.
"""

import dis
import re
import sys
import warnings
from collections.abc import Callable
from time import thread_time

from tree_sitter import LogType, Node, Parser, Tree

from codescaler_plugin.extraction.languages import grammar
from codescaler_plugin.records import Status

MAX_CODE_CHARS = 24_576
"""Longest program that is read; the longest reference solutions of contest sets are below 10,000 characters."""

_PYTHON = f"Python {sys.version_info.major}.{sys.version_info.minor}"
_FILE = "<completion>"
_NO_UNICODE = "is no valid Unicode text"
_filter: object = None
# Each lambda's name holds those of all around it: 2,000 nested ones, 14,000 characters, take the compiler a second.
_MAX_LAMBDAS = 500
# Functions, classes and comprehensions that are alike collide in a table of the compiler's: 3,000 take it 0.3 s.
_MAX_SCOPES = 1000
_SCOPES = ("def", "class", "for", "lambda")
# `1for` and `1jfor` are a number and a word.
_SCOPE_WORDS = re.compile(r"(?<![^\W\djJ])(?:def|class|for|lambda)\b")
# A string that is not closed ends with its line or the text, where the compiler refuses it: each letter is read once.
_STRING_OR_COMMENT = re.compile(
    r"#[^\r\n]*+|([fFtT][rR]?)?(?:"
    r"'''(?:[^'\\]++|\\.|'(?!''))*+(?:''')?|'(?:[^'\\\r\n]++|\\(?:\r\n|.))*+'?|"
    r'"""(?:[^"\\]++|\\.|"(?!""))*+(?:""")?|"(?:[^"\\\r\n]++|\\(?:\r\n|.))*+"?)',
    re.DOTALL,
)
_F_STRINGS_NEST_QUOTES = sys.version_info >= (3, 12)
# Opcodes of programs that do nothing.
_MANY = range(40)  # longer displays compile to other opcodes than short ones
_IDLE_PROGRAM = "\n".join(
    ["1", "x", "pass", "-x", "+x", "~x", "not x", "(x, 1)", "[x]", "[1, 2, 3]", "{x}", "{1, 2, 3}", "{x: 1}"]
    + ["{1: 2, 3: 4}", "{1: x, 3: x}", "{}", f"{[*_MANY]}", f"{ {*_MANY} }", f"{dict.fromkeys(_MANY, 1)}"]
    + [bracket.format("x," * 40) for bracket in ("[{}]", "({})", "{{{}}}")]
    + ["{" + ", ".join(f"x: {value}" for value in ["x"] * 40) + "}"]
)
_IDLE_OPCODES = frozenset(compile(_IDLE_PROGRAM, "", "exec").co_code[::2]) | {dis.EXTENDED_ARG}
_STORE = bytes([dis.opmap["STORE_NAME"]])
_IDLE_NODES = {
    "empty_statement",
    "package_clause",
    "package_declaration",
    "php_tag",
    "text",
    "hash_bang_line",
    "preproc_call",
}
_IDLE_ENDINGS = ("comment", "literal", "identifier", "string", "number", "integer", "float")
# What grammars take seconds and gigabytes over, out of our reach, where a text has thousands of them: open brackets
# and comments; in one statement "<", each of which may open a list of types; backslashes with nothing between them.
_MAX_DEPTH = 256  # as clang
_MAX_ANGLES = 400
_MAX_BACKSLASHES = 400
_BACKSLASHES = re.compile(r"(?:\\\s*+)++")
_BRACKETS = re.compile(r"/\*|\*/|[](){}[]")
# A grammar's steps come in hundreds; one hundred in so many is logged, up to so many lines.
_LOGGED_ONE_IN, _LOG_LINES = 16, 1000
_TO_BEGIN = 8  # hundreds of steps that cost as much as to set up a parse and to give up on its text
_STATEMENT_END = re.compile(r"[;{}]")
_STATEMENTS = {"expression_statement", "global_statement", "statement"}


class Budget:
    """What all grammars together may spend on one completion.

    Steps decide, so that the verdict is the same on every machine; CPU time is the last resort, for a step can take
    milliseconds where a text is hostile.
    """

    def __init__(self) -> None:
        self.hundreds_of_steps = 1200  # the densest program of the greatest length
        self.deadline = 0.0  # from the first step on: to ask the kernel takes as long as to read the fences

    def is_spent(self, hundreds: int = 1) -> bool:
        """Count hundreds of steps."""
        self.hundreds_of_steps -= hundreds
        now = thread_time()
        self.deadline = self.deadline or now + 0.15
        return self.hundreds_of_steps < 0 or now > self.deadline


def check(code: str, language: str, budget: Budget) -> tuple[Status, str]:
    """`ok`, or why the text is not a valid program of an installed language, and a clause that says so.

    `trivial` is a program in which nothing happens: only comments, constants and lists of them, docstrings, bare
    names, `pass`, and in Python what the compiler drops (`if 0: f()`).

    Args:
        code: any text.
        language: a name of `LANGUAGES`.
        budget: of the completion; a grammar that has spent it gives up with `too_complex`.

    Returns:
        One of `ok`, `too_long`, `syntax_error`, `too_complex`, `trivial`, and its clause (empty for `ok`).
    """
    if len(code) > MAX_CODE_CHARS:
        return Status.TOO_LONG, f"has {len(code):,} characters, above the limit of {MAX_CODE_CHARS:,}"
    if "\0" in code:
        return Status.SYNTAX_ERROR, "holds a NUL byte"
    return _check_python(code) if language == "python" else _check_grammar(code, language, budget)


def _check_python(code: str) -> tuple[Status, str]:
    if len(code) > 3 * _MAX_LAMBDAS and sum(map(code.count, _SCOPES)) > _MAX_LAMBDAS:
        words = _SCOPE_WORDS.findall(_without_strings(code))
        if words.count("lambda") > _MAX_LAMBDAS:
            return Status.TOO_COMPLEX, f"has more than {_MAX_LAMBDAS} lambdas"
        if len(words) > _MAX_SCOPES:
            return Status.TOO_COMPLEX, f"has more than {_MAX_SCOPES} of {', '.join(_SCOPES)}"
    _silence_warnings()
    try:
        compiled = compile(code, _FILE, "exec", dont_inherit=True)
    except SyntaxError as error:
        return Status.SYNTAX_ERROR, f"does not compile as {_PYTHON}: {error.msg} (line {error.lineno})"
    except ValueError:
        return Status.SYNTAX_ERROR, _NO_UNICODE
    except (RecursionError, MemoryError):  # the two ways in which CPython refuses deep nesting
        return Status.TOO_COMPLEX, "is nested too deeply for the compiler"
    opcodes = compiled.co_code[::2]
    if compiled.co_names[:1] == ("__doc__",):  # a docstring is stored before anything happens
        opcodes = opcodes.replace(_STORE, b"", 1)
    idle = _IDLE_OPCODES.issuperset(opcodes)
    return (Status.TRIVIAL, "does nothing") if idle else (Status.OK, "")


def _without_strings(code: str) -> str:
    """Python code without its strings and comments. f-strings hold code and stay.

    Where they may nest quotes, a text that has one stays whole.
    """
    pieces, end = [], 0
    for token in _STRING_OR_COMMENT.finditer(code):
        if not token[1]:
            pieces.append(code[end : token.start()])
            end = token.end()
        elif _F_STRINGS_NEST_QUOTES:
            return code
    return " ".join([*pieces, code[end:]])


def _silence_warnings() -> None:
    """Put first a filter against warnings that a completion's own text gives (bad escapes), and no others.

    It stays: to change the filters and back for each program would reach all threads of the process, and take longer.
    """
    global _filter
    if not warnings.filters or warnings.filters[0] is not _filter:
        warnings.filterwarnings("ignore", module=re.escape(_FILE))
        _filter = warnings.filters[0]


def _check_grammar(code: str, language: str, budget: Budget) -> tuple[Status, str]:
    try:
        code.encode()
    except UnicodeEncodeError:
        return Status.SYNTAX_ERROR, _NO_UNICODE
    if budget.is_spent(_TO_BEGIN):
        return Status.TOO_COMPLEX, "comes after others that took the grammars too long"
    if excess := _excess(code):
        return Status.TOO_COMPLEX, excess
    variant = ""
    if language == "php" and "<?" not in code:
        variant = "language_php_only"
    elif language == "typescript" and "</" in code:
        variant = "language_tsx"
    parsed = _parse(code, language, variant, budget)
    if isinstance(parsed, int):
        line = parsed
        easier = _without_false_alarms(code, language)
        if easier != code:
            parsed = line if _excess(easier) else _parse(easier, language, variant, budget)
        elif variant == "language_tsx":  # the mark of JSX may have stood in a string or comment
            parsed = _parse(code, language, "", budget)
        parsed = line if isinstance(parsed, int) else parsed
    if parsed is None:
        return Status.TOO_COMPLEX, f"takes the {language} grammar too long"
    if isinstance(parsed, int):
        return Status.SYNTAX_ERROR, f"does not parse as {language} (near line {parsed})"
    idle = all(map(_is_idle_node, parsed.root_node.named_children))
    return (Status.TRIVIAL, "does nothing") if idle else (Status.OK, "")


def _excess(code: str) -> str:
    """What a text has too much of for any grammar, as a clause; empty if nothing."""
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


def _parse(code: str, language: str, variant: str, budget: Budget) -> Tree | int | None:
    """The tree of a program without errors, the line of the first error, or None if the budget is spent."""
    source = code.encode() + b"\n"  # some grammars end a statement only at a line's end
    parser = Parser(grammar(language, variant))
    failed_at = hundreds = lines = 0
    recovered = False

    def heard(_: LogType, message: str) -> None:
        nonlocal lines, recovered
        lines += 1
        recovered = recovered or message.startswith("resume")
        if lines == _LOG_LINES:
            del parser.logger

    def hopeless(offset: int, has_error: bool) -> bool:
        """Recovering from errors takes long. A grammar that believes it has recovered tells of it in its log alone."""
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
    except ValueError:  # how the parser says that the callback stopped it
        return source.count(b"\n", 0, failed_at) + 1 if failed_at else None
    finally:
        del parser.logger  # else the two hold each other for good
    return _error_line(tree.root_node) if tree.root_node.has_error else tree


def _error_line(node: Node) -> int:
    while child := next((child for child in node.children if child.has_error or child.is_missing), None):
        node = child
    return node.start_point.row + 1


_Replacement = str | Callable[[re.Match[str]], str]
# What the grammars of C and C++ refuse, and an equivalent that they read.
_CASE_RANGE = re.compile(r"(\bcase\s+[^\s:;{}.][^:;{}.]{0,40})\.\.\."), r"\1%"
_VA_ARG = re.compile(r"(\bva_arg\s*\([^(),;]{1,80},)([^(),;]{1,80})\)"), r"\1 sizeof(\2))"
_DEFAULT_VALUE = re.compile(r"((?:[(,]\s*\w[\w\s:<>&*]*|>)[\s&*>]\w+\s*=\s*)\{"), r"\1x{"
_USED_NAMES = re.compile(r"\busing\s+[\w:]+(?:\s*,\s*[\w:]+)+\s*;"), lambda names: names[0].replace(",", "; using ")
_EQUIVALENTS: dict[str, tuple[tuple[re.Pattern[str], _Replacement], ...]] = {
    "c": (_CASE_RANGE, _VA_ARG, (re.compile(r"\b(double|float)\s+_?[cC]omplex\b"), r"\1")),
    "cpp": (
        _CASE_RANGE,
        _VA_ARG,
        _DEFAULT_VALUE,
        _USED_NAMES,
        (re.compile(r"(\busing\s+[\w:]+(?:\(\s*\))?)\s*\.\.\.(?=\s*;)"), r"\1"),
        (re.compile(r"(\btypeid\s*)(\((?:[^()]++|\([^()]*+\))++\))"), r"\1(sizeof\2)"),
        (re.compile(r"([?:]\s*)throw\b(?!\s*;)"), r"\1!"),
        (re.compile(r"->\*"), ".*"),
        (re.compile(r"\b(?:PRI|SCN)[diouxX](?:8|16|32|64|MAX|PTR)\b"), '""'),
    ),
}


def _without_false_alarms(code: str, language: str) -> str:
    """An equivalent of a program in which a grammar stumbles less."""
    if language == "kotlin":  # its grammar wants a line's end after the last member of a class
        return code.replace("}", "\n}")
    if language in _EQUIVALENTS and "#define" in code:
        code = _expand_macros(code)
    for pattern, equivalent in _EQUIVALENTS.get(language, ()):
        code = pattern.sub(equivalent, code)
    return code


_MAX_BOUND = 16 * MAX_CODE_CHARS
_QUOTED = r""""(?:[^"\\\n]++|\\.)*+"?|'\\?.'"""
_MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)(?:\(([^()\n]*)\))?(.*)$", re.MULTILINE)
_STRINGIZED = re.compile(rf"({_QUOTED}|##)|//.*|#\s*\w+")
_PASTED = re.compile(r",\s*##\s*(?=\))|\s*##\s*")
_TOKEN = re.compile(rf"{_QUOTED}|[A-Za-z_]\w*")
_OPENING = re.compile(r"\s*\(")
_SEPARATOR = re.compile(rf"{_QUOTED}|[][(){{}},]")


def _expand_macros(code: str) -> str:
    """C code with its own macros expanded, a few levels deep, up to the length that is read.

    Knows nothing of includes and conditions; it serves to see whether statements such as `FOR(i, 0, n) x += i;` parse.
    """
    code = code.replace("\\\n", " ")
    macros = {macro[1]: (macro[2], _body(macro[3])) for macro in _MACRO.finditer(code)}
    code = _MACRO.sub("", code)
    for _ in range(4):
        expanded = _expand_once(code, macros)
        if expanded == code or len(expanded) > MAX_CODE_CHARS:
            break
        code = expanded
    return code


def _body(text: str) -> str:
    """What a macro stands for, without its comment; strings that are made of arguments are empty."""
    return _STRINGIZED.sub(lambda token: token[1] or ('""' if token[0][0] == "#" else ""), text).strip()


def _expand_once(code: str, macros: dict[str, tuple[str | None, str]]) -> str:
    parts: list[str] = []
    position = length = 0
    while (match := _TOKEN.search(code, position)) and length <= MAX_CODE_CHARS:
        parts.append(code[position : match.start()])
        position = match.end()
        parameters, body = macros.get(match[0], (None, match[0]))
        if parameters is not None:
            if opening := _OPENING.match(code, position):
                arguments, position = _arguments(code, opening.end())
                body = _bound(body, parameters, arguments)
            else:
                body = match[0]
        parts.append(body)
        length += len(body)
    return "".join([*parts, code[position:]])


def _bound(body: str, parameters: str, arguments: list[str]) -> str:
    """The body of a macro with arguments in the place of its parameters, as it is if that may take long."""
    if len(body) * sum(map(len, arguments)) > _MAX_BOUND:
        return body
    names = [name.strip() for name in parameters.split(",")]
    values = dict(zip(names, arguments, strict=False))
    if names[-1] == "...":
        values["__VA_ARGS__"] = ", ".join(arguments[len(names) - 1 :])
    return _PASTED.sub("", _TOKEN.sub(lambda name: values.get(name[0], name[0]), body))


def _arguments(code: str, start: int) -> tuple[list[str], int]:
    """The arguments of a macro's use, and where it ends; `start` is where the first begins."""
    depth = 1
    values: list[str] = []
    for separator in _SEPARATOR.finditer(code, start):
        if separator[0] in ("(", "[", "{"):
            depth += 1
        elif separator[0] in (")", "]", "}"):
            depth -= 1
        if (separator[0] == "," and depth == 1) or depth == 0:
            values.append(code[start : separator.start()].strip())
            start = separator.end()
        if depth == 0:
            return values, start
    return [*values, code[start:].strip()], len(code)


def _is_idle_node(node: Node) -> bool:
    if node.type in _STATEMENTS:
        return all(map(_is_idle_node, node.named_children))
    return node.type in _IDLE_NODES or node.type.endswith(_IDLE_ENDINGS)

"""Equivalents of valid C and C++ programs that their grammars refuse: macros expanded, other syntax rewritten.

An equivalent is only parsed. It is not the program that is scored.
"""

import re
from collections.abc import Callable

from codescaler_plugin.extraction.limits import MAX_CODE_CHARS

_Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]
_BOTH: tuple[_Rule, ...] = (
    (re.compile(r"(\bcase\s+[^\s:;{}.][^:;{}.]{0,40})\.\.\."), r"\1%"),
    (re.compile(r"(\bva_arg\s*\([^(),;]{1,80},)([^(),;]{1,80})\)"), r"\1 sizeof(\2))"),
)
C: tuple[_Rule, ...] = (*_BOTH, (re.compile(r"\b(double|float)\s+_?[cC]omplex\b"), r"\1"))
CPP: tuple[_Rule, ...] = (
    *_BOTH,
    (re.compile(r"((?:[(,]\s*\w[\w\s:<>&*]*|>)[\s&*>]\w+\s*=\s*)\{"), r"\1x{"),
    (re.compile(r"\busing\s+[\w:]+(?:\s*,\s*[\w:]+)+\s*;"), lambda names: names[0].replace(",", "; using ")),
    (re.compile(r"(\busing\s+[\w:]+(?:\(\s*\))?)\s*\.\.\.(?=\s*;)"), r"\1"),
    (re.compile(r"(\btypeid\s*)(\((?:[^()]++|\([^()]*+\))++\))"), r"\1(sizeof\2)"),
    (re.compile(r"([?:]\s*)throw\b(?!\s*;)"), r"\1!"),
    (re.compile(r"->\*"), ".*"),
    (re.compile(r"\b(?:PRI|SCN)[diouxX](?:8|16|32|64|MAX|PTR)\b"), '""'),
)

_MAX_BOUND = 16 * MAX_CODE_CHARS
_QUOTED = r""""(?:[^"\\\n]++|\\.)*+"?|'\\?.'"""
_MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)(?:\(([^()\n]*)\))?(.*)$", re.MULTILINE)
_STRINGIZED = re.compile(rf"({_QUOTED}|##)|//.*|#\s*\w+")
_PASTED = re.compile(r",\s*##\s*(?=\))|\s*##\s*")
_TOKEN = re.compile(rf"{_QUOTED}|[A-Za-z_]\w*")
_OPENING = re.compile(r"\s*\(")
_SEPARATOR = re.compile(rf"{_QUOTED}|[][(){{}},]")


def rewritten(code: str, rules: tuple[_Rule, ...]) -> str:
    """The equivalent of a program by the rules `C` or `CPP`."""
    if "#define" in code:
        code = _expand_macros(code)
    for pattern, replacement in rules:
        code = pattern.sub(replacement, code)
    return code


def _expand_macros(code: str) -> str:
    """C code with its own macros expanded, a few levels deep: `FOR(i, 0, n) x += i;` parses only then."""
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
    """The body of a macro without its comment. Strings that are made of arguments are empty."""
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
    """The body of a macro with its parameters replaced by arguments; unchanged where that may take long."""
    if len(body) * sum(map(len, arguments)) > _MAX_BOUND:
        return body
    names = [name.strip() for name in parameters.split(",")]
    values = dict(zip(names, arguments, strict=False))
    if names[-1] == "...":
        values["__VA_ARGS__"] = ", ".join(arguments[len(names) - 1 :])
    return _PASTED.sub("", _TOKEN.sub(lambda name: values.get(name[0], name[0]), body))


def _arguments(code: str, start: int) -> tuple[list[str], int]:
    """The arguments of a macro's use and its end; the first argument begins at `start`."""
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

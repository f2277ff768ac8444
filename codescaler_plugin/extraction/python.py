"""The rule of Python: a program is valid if the running interpreter compiles it, and something happens in it.

Compiling catches what a parse does not, such as a `return` outside a function or a repeated argument name. The program
is not run.
"""

import dis
import re
import sys
import warnings

from codescaler_plugin.records import Status

_PYTHON = f"Python {sys.version_info.major}.{sys.version_info.minor}"
_FILE = "<completion>"
_filter: object = None
# Each lambda's name holds the names of all lambdas around it: 2,000 nested ones take the compiler a second.
_MAX_LAMBDAS = 500
# Functions, classes and comprehensions that are alike collide in a table of the compiler: 3,000 take it 0.3 s.
_MAX_SCOPES = 1000
_SCOPES = ("def", "class", "for", "lambda")
# `1for` and `1jfor` are a number and a word.
_SCOPE_WORDS = re.compile(r"(?<![^\W\djJ])(?:def|class|for|lambda)\b")
# A string that is not closed ends with its line or the text, where the compiler fails. Each letter is read once.
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


def check_python(code: str) -> tuple[Status, str]:
    """The status of a text of at most `MAX_CODE_CHARS` as a Python program, and a clause that explains it."""
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
        return Status.SYNTAX_ERROR, "is no valid Unicode text"
    except (RecursionError, MemoryError):  # the two ways in which CPython refuses deep nesting
        return Status.TOO_COMPLEX, "is nested too deeply for the compiler"
    opcodes = compiled.co_code[::2]
    if compiled.co_names[:1] == ("__doc__",):  # a docstring is stored before anything happens
        opcodes = opcodes.replace(_STORE, b"", 1)
    idle = _IDLE_OPCODES.issuperset(opcodes)
    return (Status.TRIVIAL, "does nothing") if idle else (Status.OK, "")


def _without_strings(code: str) -> str:
    """Python code without its strings and comments, whole if it has an f-string that may nest quotes."""
    pieces, end = [], 0
    for token in _STRING_OR_COMMENT.finditer(code):
        if not token[1]:
            pieces.append(code[end : token.start()])
            end = token.end()
        elif _F_STRINGS_NEST_QUOTES:
            return code
    return " ".join([*pieces, code[end:]])


def _silence_warnings() -> None:
    """Silence the warnings of a completion's own text, and leave it so: to undo it is slow and reaches all threads."""
    global _filter
    if not warnings.filters or warnings.filters[0] is not _filter:
        warnings.filterwarnings("ignore", module=re.escape(_FILE))
        _filter = warnings.filters[0]

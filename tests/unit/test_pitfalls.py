"""One row per pitfall of the public recipe's extraction: the input, what its stated rule makes of it, what ours does.

The rule, as far as it is public: blocks by a regular expression over the whole text, exactly one, stripped, `ast.parse`
without an error; anything else is worth 0. `reference` is that rule, so that each difference is computed, not claimed.
"""

import ast
import re
import warnings

import pytest

from codescaler_plugin import extract_code

F = "```"
PY = f"{F}python\nx = 1\n{F}\n"
NESTED = "x = 1" + "+1" * 5000


def reference(text: str) -> str:
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    if len(blocks) != 1:
        return ""
    code = blocks[0].strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    return code


# number, input, the reference's code, our status, our code; language `python` and policy `single` unless given
ROWS = [
    ("1 plain", PY, "x = 1", "ok", "x = 1\n", {}),
    ("2 c++", f"{F}c++\nint x;\n{F}", "", "ok", "int x;\n", {"language": "c++"}),
    ("2 c#", f"{F}c#\nint x = 1;\n{F}", "", "ok", "int x = 1;\n", {"language": "c#"}),
    ("2 objective-c", f"{F}objective-c\nint x;\n{F}", "", "wrong_language", "", {}),
    ("2 python3.11", f"{F}python3.11\nx = 1\n{F}", "", "ok", "x = 1\n", {}),
    ("2 braces", f"{F}{{python}}\nx = 1\n{F}", "", "ok", "x = 1\n", {}),
    ("2 attribute", f'{F}python title="a"\nx = 1\n{F}', "", "ok", "x = 1\n", {}),
    ("3 trailing space", f"{F}python \nx = 1\n{F}", "", "ok", "x = 1\n", {}),
    ("3 crlf", f"{F}python\r\nx = 1\r\n{F}\r\n", "", "ok", "x = 1\n", {}),
    ("4 mispaired", f"{F}c++\nint x;\n{F}\nprose\n{PY}", "prose", "ok", "x = 1\n", {"policy": "last"}),
    ("5 tildes", "~~~python\nx = 1\n~~~\n", "", "ok", "x = 1\n", {}),
    ("6 longer outer", f"{F}`md\n{PY}{F}`\n", "", "wrong_language", "", {}),
    ("7 unclosed", f"{F}python\nx = 1\n", "", "unclosed", "", {}),
    ("8 inline", f"{F}x = 1{F}", "", "no_block", "", {}),
    (
        "9 in a list",
        f"1. So:\n\n   {F}python\n   x = 1\n   y = 2\n   {F}\n",
        "",
        "ok",
        "x = 1\ny = 2\n",
        {},
    ),
    ("10 fence in a string", f"{F}python\ns = '{F}'\nx = 1\n{F}\n", "", "ok", f"s = '{F}'\nx = 1\n", {}),
    ("11 output block", f"{PY}{F}\n1\n{F}\n", "", "multiple_blocks", "", {}),
    ("11 output block", f"{PY}{F}\n1\n{F}\n", "", "ok", "x = 1\n", {"policy": "last"}),
    ("12 draft in thinking", f"<think>\n{F}python\ny = 0\n{F}\n</think>\n{PY}", "", "ok", "x = 1\n", {}),
    ("13 open draft in thinking", f"<think>\n{F}python\ny = 0\n</think>\n{PY}", "", "ok", "x = 1\n", {}),
    ("14 empty", f"{F}python\n{F}\n", "", "trivial", "", {}),
    ("15 comment", f"{F}python\n# x\n{F}", "# x", "trivial", "", {}),
    ("15 docstring", f'{F}python\n"""x"""\n{F}', '"""x"""', "trivial", "", {}),
    ("15 pass", f"{F}python\npass\n{F}", "pass", "trivial", "", {}),
    ("15 constant", f"{F}python\n42\n{F}", "42", "trivial", "", {}),
    ("15 name", f"{F}python\nhello\n{F}", "hello", "trivial", "", {}),
    ("15 json", f'{F}json\n{{"a": [1, true]}}\n{F}', '{"a": [1, true]}', "wrong_language", "", {}),
    ("15 json untagged", f'{F}\n{{"a": [1, -2]}}\n{F}', '{"a": [1, -2]}', "trivial", "", {}),
    ("16 return outside", f"{F}python\nreturn 1\n{F}", "return 1", "syntax_error", "", {}),
    (
        "16 same argument twice",
        f"{F}python\ndef f(a, a): return a\n{F}",
        "def f(a, a): return a",
        "syntax_error",
        "",
        {},
    ),
    ("16 await outside", f"{F}python\nawait x\n{F}", "await x", "syntax_error", "", {}),
    ("16 star target", f"{F}python\n*a = 1\n{F}", "*a = 1", "syntax_error", "", {}),
    ("17 go", f"{F}go\nfunc f() int {{ return 1 }}\n{F}", "", "ok", "func f() int { return 1 }\n", {"language": "go"}),
    ("18 js read as Python", f"{F}js\nconsole.log(1)\n{F}", "console.log(1)", "wrong_language", "", {}),
    ("20 bom", f"{F}python\n\ufeffx = 1\n{F}", "", "ok", "x = 1\n", {}),
    ("20 bom before the fence", f"\ufeff{PY}", "x = 1", "ok", "x = 1\n", {}),
    ("20 nul", f"{F}python\nx = 1\0\n{F}", "", "syntax_error", "", {}),
    ("20 doctest", f"{F}python\n>>> x = 1\n{F}", "", "syntax_error", "", {}),
    ("20 magic", f"{F}python\n!pip install x\n{F}", "", "syntax_error", "", {}),
    ("21 5,000 terms", f"{F}python\n{NESTED}\n{F}", "", "too_complex", "", {}),
    ("21 100,000 minus", f"{F}python\nx = {'-' * 100_000}1\n{F}", "", "too_long", "", {}),
    ("22 warning", f"{F}python\nx = '\\d'\n{F}", "x = '\\d'", "ok", "x = '\\d'\n", {}),
    ("23 end mark", f"{F}python\nx = 1\n{F}<|im_end|>", "x = 1", "ok", "x = 1\n", {}),
    ("24 bare", "x = 1\n", "", "ok", "x = 1\n", {"policy": "bare"}),
    ("answer tags", f"<answer>\n{PY}</answer>\n", "x = 1", "ok", "x = 1\n", {}),
]


@pytest.mark.parametrize(
    ("text", "theirs", "status", "code", "settings"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS]
)
def test_pitfall(text: str, theirs: str, status: str, code: str, settings: dict[str, str]) -> None:
    assert reference(text) == theirs
    extraction = extract_code(text, explain=True, **settings)
    assert (str(extraction.status), extraction.code) == (status, code)
    assert extraction.explanation.endswith(".")


def test_python_syntax_is_that_of_the_interpreter_and_the_explanation_says_which() -> None:
    # Pitfall 19: a nested quote in an f-string is a program from Python 3.12 on.
    import sys

    extraction = extract_code(f"{F}python\nx = f'{{y['a']}}'\n{F}", explain=True)
    if sys.version_info >= (3, 12):
        assert extraction.status == "ok"
    else:
        assert extraction.status == "syntax_error"
        assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in extraction.explanation

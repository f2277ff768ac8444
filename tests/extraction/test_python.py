"""Validity of Python: what stands in strings and comments does not count, and nothing hides there."""

import io
import sys
import sysconfig
import tokenize
from functools import partial
from pathlib import Path

import pytest

from codescaler_plugin import Status
from codescaler_plugin.extraction import python
from codescaler_plugin.extraction.limits import MAX_CODE_CHARS
from codescaler_plugin.extraction.validity import Budget, check
from tests.processes import keeps

OTHER_QUOTES = str.maketrans("'\"", "\"'")


def status_of(code: str) -> Status:
    """The status of a program, which is found within 0.2 s."""
    status, _ = check(code, "python", Budget())
    assert keeps(0.2, lambda: check(code, "python", Budget()))
    return status


@pytest.mark.parametrize(
    "code",
    [
        "T = {" + ", ".join(f"{n}: 'for{n}'" for n in range(1_500)) + "}",
        "T = [" + "'lambda', " * 600 + "]",
        "T = [" + 'r"def \\"", ' * 1_100 + "]",
        "x = f(1)  # a class for a def\n" * 700,
        '"""' + "for a class of lambda\n" * 800 + '"""\nx = f(1)',
        "x = b'''\n" + "for\\'''\n" * 1_100 + "'''\nf(x)",
        "x = 'a \\\n" + "for \\\n" * 1_100 + "'\nf(x)",
        "x = 'a \\\r\n" + "for \\\r\n" * 1_100 + "'\nf(x)",
        "".join(f"before{n} = defer = classes = lambdas = {n}\n" for n in range(500)),
        "s = '#'; t = \"for'\"\n" * 1_050,
        "s = 'if'; t = 'for'\n" * 1_050,
    ],
)
def test_words_in_strings_comments_and_names_do_not_count(code: str) -> None:
    assert sum(map(code.count, ("def", "class", "for"))) > 1_000 or code.count("lambda") > 500
    status = status_of(code)
    assert status is Status.OK


@pytest.mark.parametrize(("nest", "status"), [(False, Status.OK), (True, Status.TOO_COMPLEX)])
def test_where_f_strings_nest_quotes_a_program_with_one_counts_its_strings(
    nest: bool, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(python, "_F_STRINGS_NEST_QUOTES", nest)
    table = "T = [" + "'for', " * 1_100 + "'if']\n"
    for code in (table + "x = f'{y}'", 'x = Rf"""{y}"""\n' + table):
        assert check(code, "python", Budget())[0] is status
    assert check(table + "x = 'if'", "python", Budget())[0] is Status.OK


# Statements after which a reader of strings that errs takes code for a string, up to the next such statement.
OPENERS = [
    r"'\''",
    r"'\\'",
    r"'\\\''",
    r"r'\''",
    r"Rb'\\'",
    r"rf'\''",
    r"'''a\''''",
    r"'''\\'''",
    "1 or'a'",
    "1 if'a'else\"'\"",
    "'#'",
    "#'",
    "#'''",
    '# """',
    "#\r'#'",
    "#'\r",
    "# \\",
    "# '\\",
    "'a'\\\n'#'",
    "'a\\\n'",
    "'a\\\r\n'",
    "'a\\\r'",
    "''''a\\''''",
    "''''''",
    "'''\"'''",
    "'''a''\"\"\"'''",
    "'''\n#'''",
    "'''\\\n'''",
    "'' \"'\"",
    "''\"'\"",
    '"\'"',
    'u"\'"',
    "f'{1}'",
    "f'{\"#\"}'",
    "f'#{1}'",
    "f'''\"{1}'''",
]
FUNCTIONS = "def f():0\n" * 2_300


@pytest.mark.parametrize(
    "scopes", [FUNCTIONS, "class A:0\n" * 2_300, "[x for x in y]\n" * 1_550, "lambda:0\n" * 2_300]
)
@pytest.mark.parametrize("opener", [*OPENERS, *(opener.translate(OTHER_QUOTES) for opener in OPENERS)])
def test_scopes_do_not_hide_between_quotes(opener: str, scopes: str) -> None:
    compile(opener, "", "exec")
    status = status_of(f"{opener}\n{scopes}{opener}\n")
    assert status is Status.TOO_COMPLEX


@pytest.mark.parametrize("mark", ["'", '"""', "'\\\n", "f'{", "'\n", "\\"])
def test_a_text_with_an_unclosed_string_is_refused_at_once(mark: str) -> None:
    for text in (mark + FUNCTIONS, FUNCTIONS + mark, FUNCTIONS[:10_000] + mark + FUNCTIONS[:10_000]):
        status = status_of(text)
        assert status in (Status.TOO_COMPLEX, Status.SYNTAX_ERROR)


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@pytest.mark.parametrize(
    "unit",
    [
        "[1for x in y]\n",
        "[1jfor x in y]\n",
        "[1.for x in y]\n",
        "[1.jfor x in y]\n",
        "[1_0Jfor x in y]\n",
        "['a'for x in y]\n",
        "[x for(x)in'a']\n",
        "f'{[x for x in y]}'\n",
        "F'''{[x for x in y]}'''\n",
        "fR'{[x for x in y]}'\n",
        "Rf'{[x for x in y]}'\n",
        "f'{1:{[x for x in y]}}'\n",
        "f'{f\"{[x for x in y]}\"}'\n",
        "'a'f'{[x for x in y]}'\n",
        "1 if[x for x in y]else'a'\n",
        "lambda:'a'\n",
        "''if 1else lambda:0\n",
        "class A:'#'\n",
        "def f():'for'\n",
    ],
)
def test_every_scope_counts(unit: str) -> None:
    count = MAX_CODE_CHARS // len(unit)
    compile(unit, "", "exec")
    assert len(python._SCOPE_WORDS.findall(python._without_strings(unit * count))) >= count
    status = status_of(unit * count)
    assert (status is Status.TOO_COMPLEX) == (count > 1_000 or "lambda" in unit)


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "lambda:" * 600 + "0",
        "'\\'';x = " + "lambda:" * 600 + "0;'\\''",
        "x = " + "lambda a='#':" * 600 + "0",
        "x = " + "lambda a='\\'':" * 600 + "0",
        "x = " + "lambda a=r'\\\\':" * 600 + "0",
        "x = " + "lambda a='''\"''':" * 600 + "0",
        "x = (" + "lambda:#'\n" * 600 + "0)",
        "x = (" + "lambda:#'''\r" * 600 + "0)",
        "x = " + "lambda:\\\n" * 600 + "0",
        "x = " + "lambda a=f'{1}':" * 600 + "0",
        "x = f'{" + "(lambda:" * 600 + "0" + ")" * 600 + "}'",
        "# ' \"\nx = " + "lambda:" * 600 + "0  # '",
        "x = 1if 1else " + "lambda:" * 600 + "0",
    ],
)
def test_nested_lambdas_do_not_hide_behind_quotes(text: str) -> None:
    status = status_of(text)
    assert status is Status.TOO_COMPLEX


UNITS = [
    "'",
    '"',
    "\\",
    "\\'",
    "'\\",
    '\\"',
    "'\\'",
    "'''",
    '"""',
    "\\'''",
    "''' \\",
    "'\"",
    '"#',
    "#'",
    "f'",
    "rf'''",
]
UNITS += ["\\\n", "\\\r\n", "'\n", "'\\\n", "#\r", "for'", "for ", 'r"', "x'", "'''\"\"\"", "f'{", "for'\\", "1for"]


@pytest.mark.parametrize("start", ["", "'", '"', "'''", '"""', "f'", "#", "x = '\\"])
@pytest.mark.parametrize("unit", UNITS)
def test_strings_and_comments_are_found_in_linear_time(unit: str, start: str) -> None:
    text = (start + unit * MAX_CODE_CHARS)[:MAX_CODE_CHARS]
    for hostile in (text, text.translate(OTHER_QUOTES)):
        assert keeps(0.02, partial(python._without_strings, hostile))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="an f-string is no single token there")
def test_the_words_that_are_counted_are_those_of_the_tokenizer() -> None:
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:40]:
        code = file.read_text("utf-8")
        tokens = tokenize.generate_tokens(io.StringIO(code).readline)
        words = [token.string for token in tokens if token.string in python._SCOPES]
        assert python._SCOPE_WORDS.findall(python._STRING_OR_COMMENT.sub(" ", code)) == words, file

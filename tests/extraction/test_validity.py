"""Valid programs of other languages than Python, and the known errors of their grammars."""

import re
import time
from functools import partial

import pytest

from codescaler_plugin import Status, extract_code
from codescaler_plugin.extraction import validity
from codescaler_plugin.extraction.languages import LANGUAGES, grammar
from codescaler_plugin.extraction.limits import MAX_CODE_CHARS
from tests.extraction.programs import OTHERS, PROGRAMS, status
from tests.processes import keeps


def test_every_language_has_programs_here() -> None:
    assert list(PROGRAMS) == OTHERS


@pytest.mark.parametrize("language", OTHERS)
def test_programs_are_valid(language: str) -> None:
    assert [status(code, language) for code in PROGRAMS[language]] == [Status.OK] * len(PROGRAMS[language])


@pytest.mark.parametrize("language", OTHERS)
def test_prose_and_broken_programs_are_not(language: str) -> None:
    prose = "To solve this problem, we'll need: a loop (over the items; one by one"
    for code in [prose, *(program.replace("(", "(((", 1) for program in PROGRAMS[language] if "(" in program)]:
        assert status(code, language) is Status.SYNTAX_ERROR


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("c", "// to do"),
        ("cpp", "/* x */"),
        ("java", "// a\n// b"),
        ("javascript", "42;"),
        ("javascript", "hello"),
        ("typescript", "'a';"),
    ]
    + [
        ("go", "package main"),
        ("rust", "// x"),
        ("kotlin", "// x"),
        ("php", "<?php // x"),
        ("ruby", "# x\n42"),
        ("csharp", "// x"),
    ]
    + [(language, "") for language in OTHERS],
)
def test_programs_in_which_nothing_happens_are_trivial(language: str, code: str) -> None:
    assert status(code, language) is Status.TRIVIAL


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("cpp", "#ifdef X\nint f() {\n#else\nint f(int b) {\n#endif\nreturn 1; }"),  # braces split over conditions
        ("java", "x -> x + 1"),  # an expression is no Java program
    ],
)
def test_known_false_alarms(language: str, code: str) -> None:
    assert status(code, language) is Status.SYNTAX_ERROR


UNITS = [
    "(",
    "a<b,",
    "x(",
    "`${",
    "fn(",
    "(a)",
    "x=>",
    "a b ",
    "<?php ",
    'r#"',
    "macro!(",
    "[&](){",
    "a<",
    "'",
    "#if\n",
    "{",
]


# Found by a search over repeated units. At the end of a text of 4,000 characters, recovering from all the errors at once
# would take a grammar 2 s and 600 MB; at 8,000 characters, the process.
RECOVERED = [("c", "x=>"), ("java", "x=>"), ("java", "x\n=>"), ("java", "x(|"), ("java", "1 [*"), ("java", "x->&&")]
RECOVERED += [("java", "(;- for"), ("go", "for&fn ["), ("javascript", "x=|"), ("javascript", "x=,"), ("rust", "x(+")]
RECOVERED += [
    ("rust", "1 (="),
    ("c", "x=>-"),
    ("java", "; \t+"),
    ("c", "x=;"),
    ("java", "x<;"),
    ("cpp", ";+int<?php do"),
]
RECOVERED += [("ruby", "\\ "), ("ruby", "\\ \n"), ("kotlin", "/* ")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_bare_text_with_half_a_surrogate_pair_is_no_program(language: str) -> None:
    program = {"python": "x = f(1)"}.get(language) or PROGRAMS[language][0]
    comment = "# " if language in ("python", "ruby") else "// "
    assert extract_code(f"{program}\n{comment}a\n", language=language, extraction="bare").status is Status.OK
    found = extract_code(f"{program}\n{comment}\ud800\n", language=language, extraction="bare")
    assert found.status is Status.SYNTAX_ERROR
    assert found.explanation.endswith("no valid Unicode text.")


@pytest.mark.parametrize("language", OTHERS)
def test_hostile_text_is_answered_within_the_bound(language: str) -> None:
    for unit in UNITS:
        text = unit * ((MAX_CODE_CHARS - 2) // len(unit))
        assert keeps(0.2, partial(status, text, language)), unit  # the grammar's own budget is 0.1 s


@pytest.mark.parametrize(("language", "unit"), RECOVERED)
def test_many_errors_in_one_statement_are_answered_within_the_bound(language: str, unit: str) -> None:
    for size in (600, 1200, 4000, 12_000, MAX_CODE_CHARS - 2):
        text = unit * (size // len(unit))
        assert status(text, language) in (Status.SYNTAX_ERROR, Status.TOO_COMPLEX)
        assert keeps(0.2, partial(status, text, language)), size


def test_a_status_does_not_depend_on_what_else_the_machine_does(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.perf_counter()
    waiting = iter([0.3])  # seconds in which another process has the core
    monkeypatch.setattr(validity, "grammar", lambda *name: time.sleep(next(waiting, 0)) or grammar(*name))
    assert status("int f(int x) { return x; }", "c") is Status.OK
    assert time.perf_counter() - started > 0.3


def test_many_blocks_that_no_grammar_reads_are_answered_within_the_bound() -> None:
    block = "1x=" * 70 + "1\n```\n"
    for text in ("```\n" + block) * 18, ("```\n" + "1x= |\n" * 20 + "```\n") * 500:
        assert extract_code(text, language="any", extraction="last").status is Status.SYNTAX_ERROR
        assert keeps(0.2, partial(extract_code, text, language="any", extraction="last"))


def test_how_much_of_a_long_program_is_read_is_counted_in_steps_and_not_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(validity, "thread_time", lambda: 0.0)
    honest = PROGRAMS["cpp"][0] + "\n"
    assert status(honest * (MAX_CODE_CHARS // len(honest) - 1), "cpp") is Status.OK
    assert status("(a)" * (MAX_CODE_CHARS // 3 - 1), "csharp") is Status.TOO_COMPLEX


def test_an_error_that_a_grammar_recovers_from_has_its_line() -> None:
    code = "class A { int f() { return 1; } }\n" * 30 + "class B { int x = | 1; }\n" * 300
    found = extract_code(f"```\n{code}```", language="java")
    assert found.status is Status.SYNTAX_ERROR
    [line] = re.findall(r"near line (\d+)", found.explanation)
    assert 30 < int(line) < 100


def test_a_long_honest_statement_is_no_hostile_text() -> None:
    matrix = ", ".join(f"[{n}, -{n}, 0.5]" for n in range(400))
    chain = " && ".join(f"a[{n}] >= -{n} && !b({n})" for n in range(40))
    assert status(f"const m = [{matrix}];\nconst ok = {chain};", "javascript") is Status.OK

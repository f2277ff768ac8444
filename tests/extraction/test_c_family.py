"""Valid C and C++ that their grammars refuse is parsed as an equivalent, and invalid programs stay invalid."""

from functools import partial

import pytest

from codescaler_plugin import Status
from codescaler_plugin.extraction.languages import language_of
from codescaler_plugin.extraction.limits import MAX_CODE_CHARS
from tests.extraction.programs import status
from tests.processes import keeps


@pytest.mark.parametrize(
    "code",
    [
        "#define FOR(i, a, b) for (int i = (a); i < (b); i++)\nint main() { FOR(i, 0, f(1, 2)) cin >> a[i]; }",
        "#define rep(i, n) for (int i = 0; i < (n); ++i)\nint main() { rep(i, n) rep(j, m) { x++; } }",
        "#define IOS ios::sync_with_stdio(0);\nint main() { IOS int t; cin >> t; }",
        "#define LOOP \\\n  for (;;)\nint main() { LOOP x++; }",
    ],
)
def test_statement_macros_of_cpp_are_expanded_before_they_count_as_errors(code: str) -> None:
    assert status(code, "cpp") is Status.OK
    assert status(code[code.index("int main") :], "cpp") is not Status.OK


@pytest.mark.parametrize(
    "code",
    [
        '#define dbg(x) cerr << #x << "(" << (x)\nint main() { rep(3) dbg(i); }',
        "#define CAT(a, b) a##b\nint CAT(a, b) = 1;\nint main() { rep(2) CAT(s, t)++; }",
        '#define LOG(f, ...) printf(f "\\n", ##__VA_ARGS__)\nint main() { rep(2) LOG("(,"); rep(3) LOG("%d", 1); }',
        "#define each(...) for (auto __VA_ARGS__)\nint main() { each(x : v) x++; rep(2) each(y : w) y++; }",
        "#define N 10 // at most\nint main() { rep(N) x++; }",
        '#define yes puts("yes")\nint main() { rep(3) yes; puts("yes"); }',
        "#define end() { return; }\nvoid f() { rep (2) end() }\nvoid g() { v.end; }",
        "#define pick(a, b, c, ...) c\n#define two(i, n) for (int i = 0; i < n; i++)\n#define one(n) two(i, n)\n"
        "#define loop(...) pick(__VA_ARGS__, two, one)(__VA_ARGS__)\nint main() { loop(3) x++; loop(j, 3) x += j; }",
    ],
)
def test_macros_are_expanded_as_c_does(code: str) -> None:
    code = "#define rep(n) for (int i = 0; i < n; i++)\n" + code
    assert status(code, "cpp") is Status.OK
    assert status(code + "\nvoid h() { rep(3) )x++; }", "cpp") is Status.SYNTAX_ERROR


# What the grammars of C and C++ refuse; each stands beside texts that are wrong in the same place.
REWRITTEN = [
    ("cpp", "auto f() { return typeid(int).name(); }", ["typeid int", "typeid(int", "typeid(1 +)", "x typeid(int)"]),
    ("cpp", "bool f() { return a.type() == typeid(map<int, F(int)>); }", ["typeid(map<int, F(int>)"]),
    (
        "cpp",
        "void f(int n, const vector<int>& v = {}, S s = {1, {2}}, function<int(int)> g = {}) {}",
        ["{1, {2}", "= {,}"],
    ),
    (
        "cpp",
        "int f(int n) { return n < 0 ? throw E(n) : n > 1 ? 2 : throw E{1}; }",
        ["throw throw E(n)", ": throw E{1"],
    ),
    (
        "cpp",
        "template <class... F> struct O : F... { using F::operator()...; };",
        ["0; using F::operator()..., x", "0; using ... F"],
    ),
    ("cpp", "using std::cin, std::cout, std::endl;", ["using std::cin, ;", "using std::cin, 3;", "using a b, c;"]),
    ("cpp", "int f(S* s) { return (s->*p)(1) + s->*q; }", ["s->*;", "->*->*q", "(->*p)"]),
    ("cpp", 'int f() { return printf("%" PRId64 ", %5" PRIu32 "\\n", x, y); }', ['"%" PRId65 "', '"%" PRId64 +']),
    (
        "cpp",
        "int f() { return va_arg(list, double) + *va_arg(list, const char*); }",
        ["va_arg(list, )", "x va_arg(list, int)"],
    ),
    ("c", "char *f(va_list l) { return va_arg(l, char *); }", ["va_arg(l, char * char)", "x va_arg(l, char *)"]),
    (
        "c",
        "int f(int c) { switch (c) { case 'a' ... 'z': return 1; case 1 ... 5: return 2; } }",
        ["1 ... 5 ... 6", "case ... 5", "case ... : 5"],
    ),
    ("c", "double complex z = 1.0; float _Complex f(double complex x) { return x; }", ["double complex complex z"]),
]


@pytest.mark.parametrize(("language", "code", "wrong"), REWRITTEN)
def test_what_a_grammar_of_c_refuses_is_read_as_an_equivalent(language: str, code: str, wrong: list[str]) -> None:
    assert status(code, language) is Status.OK
    assert status(code.replace("(", "((", 1) if "(" in code else code + "(", language) is Status.SYNTAX_ERROR
    for part in wrong:
        assert status(code + f"\nvoid g() {{ return {part}; }}", language) is Status.SYNTAX_ERROR, part


@pytest.mark.parametrize("code", ["enum { A, B = {1} };", "struct A : throw B { };", "class A { } x = = {};"])
def test_no_rewriting_makes_a_wrong_program_right(code: str) -> None:
    assert status(code + "\nint x = typeid(int);", "cpp") is Status.SYNTAX_ERROR


HOSTILE_C = {
    "long body and argument": "#define f(x) " + "x " * 6_000 + "\nint a = f(" + "y" * 12_000 + ") f(1);",
    "long body": "#define f(x) " + "x " * 4_000 + "\nint a = f(" + "y " * 4_000 + ") f(a) f(b);",
    "brackets": "#define A ((((((((\n#define B A A A A\n#define C B B B B\nint main() { C C C C C C C C }",
    "angles": "#define A a<a<a<a<a<a<a<a<\n#define B A A A A A A A A\nint x = B B B B B B B B B 1;",
    "nested uses": "#define f(x) x x\n" + "f(" * 250 + "1" + ")" * 250,
    "definitions": "".join(f"#define A{n} A{n + 1}\n" for n in range(1_200)) + "int main() { A0 = = }",
}
HOSTILE_UNITS = [
    '"',
    '\\"',
    '"\\',
    "f(",
    "f(a, b)",
    "f  ( ",
    "##",
    ", ##",
    "#",
    "// ",
    "case ",
    "case 1 ...:",
    "va_arg(a, ",
]
HOSTILE_UNITS += [
    "(a ",
    ", a ",
    "> a = {",
    "> ",
    "(a b = {",
    "&a",
    "using a, ",
    "a,",
    "using a...",
    "typeid(",
    "typeid()",
]
HOSTILE_UNITS += ["typeid(()", "? throw ", ": ", "->*", '"" PRId64 ', "double ", "double complex ", " "]


@pytest.mark.parametrize("language", ["c", "cpp"])
def test_hostile_text_is_rewritten_within_the_bound(language: str) -> None:
    starts = ["", "#define f(x) ", "#define f(x) x\nint a = = f", "using ", "(a", "case ", "typeid("]
    texts = [start + unit * MAX_CODE_CHARS for start in starts for unit in HOSTILE_UNITS]
    equivalent = language_of(language).equivalent
    assert equivalent is not None
    for text in [*HOSTILE_C.values(), *texts]:
        broken = text[: MAX_CODE_CHARS - 20] + "\nf(1) = = 2"
        assert keeps(0.1, partial(equivalent, broken)), text[:60]
    for text in [*HOSTILE_C.values(), *texts[::5]]:
        assert keeps(0.2, partial(status, text[: MAX_CODE_CHARS - 20], language)), text[:60]


def test_macros_that_expand_without_end_are_answered_at_once() -> None:
    bomb = "#define A0 x(\n" + "".join(f"#define A{n} A{n - 1} A{n - 1} A{n - 1} A{n - 1}\n" for n in range(1, 30))
    text = bomb + "int main() { A29 A29 A29 }"
    assert status(text, "cpp") in (Status.SYNTAX_ERROR, Status.TOO_COMPLEX)
    assert keeps(0.5, partial(status, text, "cpp"))

"""Valid programs of every language but Python, and the status of a program in a fence."""

from codescaler_plugin import Status, extract_code
from codescaler_plugin.extraction.languages import LANGUAGES

OTHERS = [language for language in LANGUAGES if language != "python"]


def status(code: str, language: str) -> Status:
    return extract_code(f"```\n{code}\n```", language=language).status


PROGRAMS = {
    "c": [
        'int main(void) { for (int i = 0; i < 3; i++) printf("%d", i); return 0; }',
        "typedef struct n { int v; } n_t;",
    ],
    "cpp": [
        "template <typename T, typename... A> auto f(T&& t, A&&... a) -> decltype(g(a...)) { return g(a...); }",
        "template <class T> requires std::integral<T> T add(T a, T b) { return a + b; }",
        "vector<vector<pair<int, int>>> g(n, vector<pair<int, int>>(m));",
        "int main() { auto f = [&](auto&& self, int x) -> int { return x < 2 ? x : self(self, x - 1); }; }",
        "class Solution {\npublic:\n    int f(vector<int>& a) { return a[0]; }\n};",
        "#define ll long long\n#define all(x) x.begin(), x.end()\nint main() { ll x = 1; sort(all(v)); }",
        "TEST(Foo, Bar) { EXPECT_EQ(1, 1); }",
    ],
    "java": [
        "public int f(int x) { return x; }",
        "class Solution { List<Integer> f(int[] a) { return Arrays.stream(a).boxed().collect(Collectors.toList()); } }",
        "record P(int x, int y) { P { if (x < 0) throw new E(); } }",
    ],
    "csharp": ["Console.WriteLine(1);", "public int F(int x) => x switch { 1 => 2, _ => 3 };", "class A(int x) { }"],
    "javascript": [
        "const f = async ({a, b = 1, ...c}) => { await x?.y ?? 1; };",
        "class A { #x = 1; get y() { return 1; } }",
    ],
    "typescript": [
        "function f<T extends object>(x: T, k: keyof T): T[typeof k] { return x[k] as any; }",
        "let x = <number>y;",
        "const a = <div className={b}>c</div>;",
        "const close = '</div>';\nconst same = <T>(x: T) => x;\nlet x = <number>y;",
    ],
    "go": [
        "func f[T any](m []T) []T { return m }",
        "type N interface { ~int | ~float64 }",
        "package main\nfunc main() {}",
    ],
    "rust": [
        "fn main() { let v: Vec<i32> = (0..3).map(|x| x * 2).collect::<Vec<_>>(); }",
        "let Some(x) = y else { return; };",
    ],
    "kotlin": [
        "fun f(n: Int): Int = if (n < 2) n else f(n - 1)",
        "class A(val x: Int) { companion object { const val B = 1 } }",
    ],
    "php": ["<?php\nfunction f(int $x): ?int { return $x ?? null; }", "function f($x) { return $x + 1; }\necho f(1);"],
    "ruby": ["def f(x, *a, k: 1)\n  x.map { |y| y ** 2 }\nend", "case x\nin {a: Integer => n} then n\nend"],
}

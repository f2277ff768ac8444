"""Names of languages, and languages that another distribution registers."""

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from codescaler_plugin import (
    CodeScaler,
    CodeScalerConfig,
    ConfigError,
    Language,
    MissingExtraError,
    Status,
    extract_code,
)
from codescaler_plugin.extraction import languages
from codescaler_plugin.extraction.languages import LANGUAGES, canonical, checked_language, info_language
from codescaler_plugin.testing import FakeScorer
from tests.extraction.programs import PROGRAMS


@pytest.mark.parametrize(
    ("info", "language"),
    [
        ("", ""),
        ("   ", ""),
        ("Python", "python"),
        ("python3.11", "python"),
        ("py3", "python"),
        ("{.python .numberLines}", "python"),
        ("{python}", "python"),
        ('python title="a b"', "python"),
        ("python:src/main.py", "python"),
        ("main.py", "python"),
        ("solution.cpp", "cpp"),
        ("C++", "cpp"),
        ("c++17", "cpp"),
        ("cpp20", "cpp"),
        ("c#", "csharp"),
        ("C", "c"),
        ("c11", "c"),
        ("js", "javascript"),
        ("TSX", "tsx"),
        ("golang", "go"),
        ("java", "java"),
        ("rs", "rust"),
        ("text", "text"),
        ("python-repl", "python-repl"),
        ("pythonic", "pythonic"),
        ("x" * 10_000, "x" * 100),
        ("{code-cell} ipython3", "python"),
        ("language-python", "python"),
        ("python;", "python"),
        ("(python)", "python"),
        ("python(main.py)", "python"),
        ("python...", "python"),
        ("python_code", "python"),
        ("{lang=python}", "python"),
        ("{#id .python}", "python"),
        ('{python3 .numberLines startFrom="1"}', "python"),
        ('title="main.py"', ""),
        ("12:15:src/main.py", "python"),
        ("C:\\a\\main.py", "python"),
        ("\u200bpython", "python"),
        ("src/main.py", "python"),
        ("#!python", "python"),
        ("python#1", "python"),
    ],
)
def test_the_language_of_an_info_string(info: str, language: str) -> None:
    assert info_language(info) == language


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_untagged_program_is_recognised_among_all(language: str) -> None:
    chosen = {"python": "def f(x):\n    return x", "csharp": PROGRAMS["csharp"][1]}
    code = chosen.get(language) or PROGRAMS[language][0]
    extraction = extract_code(f"```\n{code}\n```", language="any")
    assert (extraction.status, extraction.language) == (Status.OK, language)


def test_any_takes_the_info_string_at_its_word() -> None:
    extraction = extract_code("```js\nx = 1\n```", language="any")
    assert (extraction.status, extraction.language) == (Status.OK, "javascript")
    assert extract_code("```js\nx = = 1\n```", language="any").status is Status.SYNTAX_ERROR
    assert extract_code("```haskell\nmain = print 1\n```", language="any").status is Status.WRONG_LANGUAGE
    assert extract_code("```\n)(\n```", language="any").status is Status.SYNTAX_ERROR
    assert extract_code("```\n# x\n```", language="any").status is Status.TRIVIAL


def test_a_language_whose_grammar_is_missing_is_an_error_that_names_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "find_spec", lambda name: None)
    languages.is_installed.cache_clear()
    try:
        with pytest.raises(MissingExtraError, match="pip install tree-sitter-c-sharp"):
            extract_code("", language="c#")
        tagged = extract_code("```rust\nfn main() {}\n```", language="any")
        assert tagged.status is Status.WRONG_LANGUAGE
        assert "pip install tree-sitter-rust" in tagged.explanation
        assert extract_code("```\nx = 1\n```", language="any").language == "python"
    finally:
        languages.is_installed.cache_clear()


def test_an_unknown_language_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="cobol"):
        checked_language("cobol")
    assert checked_language("C++") == canonical("cxx") == "cpp"


JULIA = """
from codescaler_plugin import Language

JULIA = Language("julia", "tree_sitter_julia", aliases=("jl",))
"""
PROGRAM = "function squares(a)\n    return [2x^2 for x in a if x > 0]\nend\n\nprintln(squares([1, 2])[end])\n"


def forget() -> None:
    """Forget the entry points that were loaded."""
    for cached in (languages.languages, languages._canonical_names, languages.info_language, languages.is_installed):
        cached.cache_clear()


class Distributions:
    """Fake distributions on a path of their own: a module, and metadata with an entry point."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, module: str, source: str, entry: str) -> None:
        (self.folder / f"{module}.py").write_text(dedent(source))
        metadata = self.folder / f"{module}-1.2.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
        (metadata / "entry_points.txt").write_text(f"[{languages.ENTRY_POINTS}]\n{entry}\n")
        forget()


@pytest.fixture
def distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Distributions]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield Distributions(tmp_path)
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]
    monkeypatch.undo()
    forget()


@pytest.fixture
def julia(distributions: Distributions) -> Distributions:
    distributions.add("julia_for_codescaler", JULIA, "julia = julia_for_codescaler:JULIA")
    return distributions


@pytest.mark.parametrize(
    ("text", "status"),
    [
        pytest.param(f"```julia\n{PROGRAM}```", Status.OK, id="its-name"),
        pytest.param(f"```jl\n{PROGRAM}```", Status.OK, id="an-alias"),
        pytest.param(f"```main.jl\n{PROGRAM}```", Status.OK, id="a-file"),
        pytest.param(f"```\n{PROGRAM}```", Status.OK, id="untagged"),
        pytest.param(f"```julia\n{PROGRAM.replace('end', '')}```", Status.SYNTAX_ERROR, id="broken"),
        pytest.param("```julia\n# to do\n42\n```", Status.TRIVIAL, id="trivial"),
        pytest.param("```python\nx = 1\n```", Status.WRONG_LANGUAGE, id="python"),
    ],
)
@pytest.mark.parametrize("name", ["julia", "jl", "Julia"])
@pytest.mark.usefixtures("julia")
def test_a_registered_language_is_read(text: str, status: Status, name: str) -> None:
    extraction = extract_code(text, language=name)
    assert extraction.status is status, extraction.explanation
    assert extraction.code == (PROGRAM if status is Status.OK else "")
    assert extraction.language == ("python" if status is Status.WRONG_LANGUAGE else "julia")


@pytest.mark.usefixtures("julia")
def test_any_takes_a_registered_language() -> None:
    tagged = extract_code(f"```jl\n{PROGRAM}```", language="any")
    assert (tagged.status, tagged.language) == (Status.OK, "julia")
    untagged = extract_code(f"```\n{PROGRAM}```", language="any")
    assert (untagged.status, untagged.language) == (Status.OK, "julia")
    bare = extract_code(f"jl\n{PROGRAM}", language="any", extraction="bare")
    assert (bare.status, bare.language) == (Status.OK, "julia")


@pytest.mark.usefixtures("julia")
def test_programs_of_a_registered_language_are_judged() -> None:
    scorer = FakeScorer({PROGRAM.strip(): 1.5})
    scaler = CodeScaler(scorer, config=CodeScalerConfig(language="julia", shaping="raw"))
    completions = [f"```julia\n{PROGRAM}```", f"```julia\n{PROGRAM.replace(']', '', 1)}```", "```python\nx = 1\n```"]
    judgements = scaler.judge(["Double n."] * 3, completions)
    assert [judgement.status for judgement in judgements] == [Status.OK, Status.SYNTAX_ERROR, Status.WRONG_LANGUAGE]
    assert [judgement.reward for judgement in judgements] == [1.5, 0.0, 0.0]
    assert scorer.items == [("Double n.", PROGRAM)]


@pytest.mark.usefixtures("julia")
def test_entry_points_are_loaded_for_a_language_that_is_not_built_in_alone() -> None:
    tagged = extract_code(f"```jl\n{PROGRAM}```")
    assert (tagged.status, tagged.language) == (Status.WRONG_LANGUAGE, "jl")
    assert "julia_for_codescaler" not in sys.modules
    assert checked_language("jl") == "julia"
    assert "julia_for_codescaler" in sys.modules
    assert extract_code(f"```jl\n{PROGRAM}```") == tagged


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param("JULIA = 1 / 0", "cannot be loaded: ZeroDivisionError", id="it-raises"),
        pytest.param("X = 1", "cannot be loaded: AttributeError", id="no-such-name"),
        pytest.param("JULIA = 'julia'", "is a str: expected a codescaler_plugin.Language", id="another-type"),
        pytest.param(JULIA.replace("jl", "py"), "takes the names py, which another language has", id="taken-alias"),
        pytest.param(JULIA.replace('"julia"', '"rust"'), "takes the names rust", id="taken-name"),
        pytest.param(JULIA.replace('"julia"', '"Julia"'), "has the name 'Julia'", id="upper-case"),
    ],
)
def test_a_broken_entry_is_a_config_error_that_names_its_distribution(
    distributions: Distributions, source: str, message: str
) -> None:
    distributions.add("broken_language", source, "julia = broken_language:JULIA")
    for language in ("julia", "any", "cobol"):
        with pytest.raises(ConfigError, match=message) as caught:
            extract_code("", language=language)
        assert "broken_language 1.2" in str(caught.value)
        with pytest.raises(ConfigError, match="broken_language"):
            CodeScalerConfig(language=language)
    assert extract_code("```python\nx = 1\n```").status is Status.OK


def test_two_distributions_of_one_language_are_a_config_error(julia: Distributions) -> None:
    julia.add("more_julia", JULIA, "julia2 = more_julia:JULIA")
    with pytest.raises(
        ConfigError, match=r"'julia2' \(more_julia:JULIA\) of more_julia 1.2 takes the names jl, julia"
    ):
        checked_language("julia")


def test_a_registered_language_without_its_grammar_names_the_wheel(distributions: Distributions) -> None:
    distributions.add("apl", JULIA.replace("julia", "apl").replace("jl", "dyalog"), "apl = apl:JULIA")
    with pytest.raises(MissingExtraError, match="pip install tree-sitter-apl"):
        checked_language("dyalog")
    with pytest.raises(ConfigError, match=r"expected one of python, .*, ruby, apl, or 'any'"):
        checked_language("cobol")


def test_a_grammar_that_cannot_be_used_is_a_config_error(distributions: Distributions) -> None:
    distributions.add("odd", JULIA.replace("tree_sitter_julia", "odd"), "julia = odd:JULIA")
    with pytest.raises(ConfigError, match=r"grammar odd\.language cannot be used"):
        extract_code(f"```julia\n{PROGRAM}```", language="julia")


@pytest.mark.parametrize(
    "values",
    [{"name": "julia"}, {"name": "julia", "grammar": "g", "check": str}, {"name": "any", "grammar": "g"}],
    ids=["no-rule", "two-rules", "any"],
)
def test_a_language_has_a_name_and_one_rule(values: dict) -> None:
    with pytest.raises(ConfigError, match=values["name"]):
        Language(**values)

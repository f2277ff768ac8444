import time
import warnings

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codescaler_plugin import ConfigError, DataError, Extraction, Status, extract_code
from codescaler_plugin.extraction import MAX_COMPLETION_CHARS
from codescaler_plugin.extraction.validity import MAX_CODE_CHARS

BLOCK = "```python\nx = 1\n```\n"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param("Here:\n\n```python\nx = 1\n```\nDone.", "x = 1\n", id="backticks"),
        pytest.param("~~~python\nx = 1\n~~~\n", "x = 1\n", id="tildes"),
        pytest.param("```python\r\nif x:\r\n    y = 1\r\n```\r\n", "if x:\n    y = 1\n", id="crlf"),
        pytest.param("```python title=x\nx = 1\n```", "x = 1\n", id="info-attribute"),
        pytest.param("```{python}\nx = 1\n```", "x = 1\n", id="info-braces"),
        pytest.param("```{.python .numberLines}\nx = 1\n```", "x = 1\n", id="info-pandoc"),
        pytest.param("```Python\nx = 1\n```", "x = 1\n", id="info-capital"),
        pytest.param("```py\nx = 1\n```", "x = 1\n", id="info-py"),
        pytest.param("```python3.11\nx = 1\n```", "x = 1\n", id="info-version"),
        pytest.param("```\nx = 1\n```", "x = 1\n", id="info-empty"),
        pytest.param("```python  \nx = 1\n```", "x = 1\n", id="info-trailing-space"),
        pytest.param("```  python\nx = 1\n```", "x = 1\n", id="info-leading-space"),
        pytest.param(
            "1. Do\n\n   ```python\n   if x:\n\n       y = 1\n   ```\n", "if x:\n\n    y = 1\n", id="in-a-list"
        ),
        pytest.param("> ```python\n> if x:\n>     y = 1\n> ```\n", "if x:\n    y = 1\n", id="in-a-quote"),
        pytest.param("  ```python\n  if x:\n      y = 1\n  ```\n", "if x:\n    y = 1\n", id="indented-fence"),
        pytest.param("````python\ns = '''\n```\n'''\n````\n", "s = '''\n```\n'''\n", id="four-backticks"),
        pytest.param("```python\ns = '```'\n```\n", "s = '```'\n", id="fence-inside-a-string"),
        pytest.param("```python\ns = '''\n~~~\n'''\n```\n", "s = '''\n~~~\n'''\n", id="other-fence-inside"),
        pytest.param("```python\nx = 1\n```", "x = 1\n", id="no-final-newline"),
        pytest.param("Use `x`.\n\n    y = 2\n\n" + BLOCK, "x = 1\n", id="inline-and-indented-code-do-not-count"),
        pytest.param(f"<think>\n```python\ndraft = 0\n```\n</think>\n\n{BLOCK}", "x = 1\n", id="think-draft"),
        pytest.param(f"```python\ndraft = 0\n```\n</think>\n\n{BLOCK}", "x = 1\n", id="only-closing-think"),
        pytest.param("\ud800\n\n" + BLOCK, "x = 1\n", id="lone-surrogate-outside"),
    ],
)
def test_one_valid_block_gives_its_code(text: str, code: str) -> None:
    assert extract_code(text) == Extraction(code, "python", Status.OK)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        pytest.param("", Status.NO_BLOCK, id="empty"),
        pytest.param("x = 1", Status.NO_BLOCK, id="bare-code"),
        pytest.param("    x = 1\n", Status.NO_BLOCK, id="indented-code"),
        pytest.param(f"<think>\n{BLOCK}", Status.NO_BLOCK, id="unclosed-think"),
        pytest.param(f"<think>\n{BLOCK}</think>\nNo.", Status.NO_BLOCK, id="block-only-in-think"),
        pytest.param(f"{BLOCK}\n{BLOCK}", Status.MULTIPLE_BLOCKS, id="two-blocks"),
        pytest.param(f"{BLOCK}\n```text\n1\n```\n", Status.MULTIPLE_BLOCKS, id="second-block-is-output"),
        pytest.param(f"{BLOCK}\0\n{BLOCK}", Status.MULTIPLE_BLOCKS, id="nul-between-blocks"),
        pytest.param("```python\nx = 1\n", Status.UNCLOSED, id="cut-off"),
        pytest.param("```python", Status.UNCLOSED, id="cut-off-after-info"),
        pytest.param("````python\nx = 1\n```\n", Status.UNCLOSED, id="closing-fence-too-short"),
        pytest.param("```c++\nint x = 1;\n```", Status.WRONG_LANGUAGE, id="c++"),
        pytest.param("```pycon\n>>> x\n```", Status.WRONG_LANGUAGE, id="pycon"),
        pytest.param("```python\nreturn 1\n```", Status.SYNTAX_ERROR, id="return-outside-function"),
        pytest.param("```python\ndef f(a, a):\n    return a\n```", Status.SYNTAX_ERROR, id="duplicate-argument"),
        pytest.param("```python\ndef f(:\n```", Status.SYNTAX_ERROR, id="does-not-parse"),
        pytest.param("```python\nx = 1\0\n```", Status.SYNTAX_ERROR, id="nul-byte"),
        pytest.param("```python\n```", Status.TRIVIAL, id="nothing-inside"),
        pytest.param("```python\n# to do\n```", Status.TRIVIAL, id="comment"),
        pytest.param('```python\n"""Doc."""\n```', Status.TRIVIAL, id="docstring"),
        pytest.param("```python\npass\n```", Status.TRIVIAL, id="pass"),
        pytest.param("```python\n42\n...\n```", Status.TRIVIAL, id="constants"),
        pytest.param("```python\nsolve\n```", Status.TRIVIAL, id="name"),
        pytest.param(f"```python\nx = {'-' * 100_000}1\n```", Status.TOO_LONG, id="100k-unary-minus"),
        pytest.param(f"```python\nx = {'-' * 60_000}1\n```", Status.TOO_COMPLEX, id="60k-unary-minus"),
        pytest.param(f"```python\nx = a{'.b' * 30_000}\n```", Status.TOO_COMPLEX, id="30k-attributes"),
        pytest.param(f"```python\nx = {'1' * MAX_CODE_CHARS}\n```", Status.TOO_LONG, id="program-too-long"),
    ],
)
def test_unusable_completion_gives_its_reason_and_no_code(text: str, status: Status) -> None:
    assert extract_code(text) == Extraction("", "python", status)


def test_program_of_the_greatest_length_is_compiled() -> None:
    code = "x = 1  #".ljust(MAX_CODE_CHARS - 1, "a") + "\n"
    assert extract_code(f"```python\n{code}```").code == code


def test_completion_above_a_million_characters_is_refused_unread() -> None:
    text = BLOCK + "a" * MAX_COMPLETION_CHARS
    start = time.perf_counter()
    extraction = extract_code(text)
    assert (extraction.status, extraction.code) == (Status.TOO_LONG, "")
    assert time.perf_counter() - start < 0.1


@pytest.mark.parametrize("unit", ["> ", "- ", "1. ", "```\n", "[", "*a "], ids=repr)
def test_deep_or_endless_markdown_is_read_in_seconds(unit: str) -> None:
    start = time.perf_counter()
    extraction = extract_code(unit * 20_000 + "\n" + BLOCK)
    assert isinstance(extraction, Extraction)
    assert time.perf_counter() - start < 5


def test_lone_surrogate_inside_the_block_does_not_crash() -> None:
    assert extract_code("```python\nx = '\ud800'\n```").status in (Status.OK, Status.SYNTAX_ERROR)


def test_syntax_warnings_of_the_program_stay_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert extract_code("```python\nx = '\\d'\nassert (x, 1)\n```").status is Status.OK


@pytest.mark.parametrize("value", [None, 1, b"x = 1", ["x"]], ids=repr)
def test_completion_that_is_no_string_is_a_data_error_naming_its_type(value: object) -> None:
    with pytest.raises(DataError, match=type(value).__name__):
        extract_code(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "offender"),
    [({"language": "cobol"}, "cobol"), ({"policy": "best"}, "best")],
    ids=["language", "policy"],
)
def test_unknown_setting_is_a_config_error_naming_it(settings: dict[str, str], offender: str) -> None:
    with pytest.raises(ConfigError, match=offender):
        extract_code("", **settings)


PIECES = [
    "```",
    "~~~",
    "python",
    "\n",
    "\r\n",
    "    ",
    "> ",
    "- ",
    "x = 1",
    "def f():",
    "return 1",
    "<think>",
    "</think>",
]


@given(st.text() | st.lists(st.sampled_from(PIECES) | st.characters(), max_size=30).map("".join))
@example("```python\nx = 1\n```")
@example("> ```python\r\n> x = 1\r\n> ```")
def test_any_text_gives_code_exactly_if_ok_and_then_it_compiles(text: str) -> None:
    extraction = extract_code(text)
    assert isinstance(extraction, Extraction)
    assert bool(extraction.code) == (extraction.status is Status.OK)
    compile(extraction.code, "<extracted>", "exec", dont_inherit=True)

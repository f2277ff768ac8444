import gc
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from codescaler_plugin import ConfigError, DataError, Extraction, Status, extract_code
from codescaler_plugin import extraction as extraction_room
from codescaler_plugin.extraction import MAX_COMPLETION_CHARS, extract_all, reader
from codescaler_plugin.extraction.blocks import find_blocks
from codescaler_plugin.extraction.limits import MAX_CODE_CHARS
from codescaler_plugin.extraction.reasoning import without_reasoning
from codescaler_plugin.text.turns import without_end_marks
from tests.processes import keeps

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
        pytest.param("<think>a</think>\ufeff" + BLOCK, "x = 1\n", id="bom-after-thinking"),
        pytest.param("---\n- So:\n  ```python\n  x = 1\n  ```\n---\n", "x = 1\n", id="between-rules"),
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
        pytest.param("```python\nif 0:\n    solve()\n```", Status.TRIVIAL, id="what-the-compiler-drops"),
        pytest.param("```python\n" + "def f():0\n" * 2_400 + "```", Status.TOO_COMPLEX, id="2,400-functions"),
        pytest.param(f"```python\nx = {'-' * 100_000}1\n```", Status.TOO_LONG, id="100k-unary-minus"),
        pytest.param(f"```python\nx = {'-' * 20_000}1\n```", Status.TOO_COMPLEX, id="20k-unary-minus"),
        pytest.param(f"```python\nx = a{'.b' * 12_000}\n```", Status.TOO_COMPLEX, id="12k-attributes"),
        pytest.param(f"```python\nx = {'1' * MAX_CODE_CHARS}\n```", Status.TOO_LONG, id="program-too-long"),
    ],
)
def test_invalid_completion_gives_its_reason_and_no_code(text: str, status: Status) -> None:
    extraction = extract_code(text)
    assert (extraction.code, extraction.status) == ("", status)


def test_program_of_the_greatest_length_is_compiled() -> None:
    code = "x = 1  #".ljust(MAX_CODE_CHARS - 1, "a") + "\n"
    assert extract_code(f"```python\n{code}```").code == code


def test_completion_above_a_million_characters_is_refused_unread() -> None:
    text = BLOCK + "a" * MAX_COMPLETION_CHARS
    extraction = extract_code(text)
    assert (extraction.status, extraction.code) == (Status.TOO_LONG, "")
    assert keeps(0.1, partial(extract_code, text))


HOSTILE = {
    "brackets": "(" * 1_000_000,
    "minus": f"```python\nx = {'-' * 100_000}1\n```",
    "minus within the limit": f"```python\nx = {'-' * 20_000}1\n```",
    "brackets within the limit": f"```python\n{'(' * 20_000}\n```",
    "lambdas": f"```python\n{'lambda:' * 499}1\n```",
    "more lambdas": f"```python\n{'lambda:' * 2_000}1\n```",
    "functions": "def f():0\n" * 2_400,
    "fenced comprehensions": "```python\n" + "[x for x in y]\n" * 1_600 + "```",
    "fenced classes": "```python\n" + "class A:0\n" * 2_400 + "```",
    "functions within the limit": "```python\n" + "def f():0\n" * 999 + "```",
    "targets": f"```python\n{'x,' * 12_000}=\n```",
    "nul": "```python\n" + "\0" * 20_000 + "\n```",
    "surrogates": "\ud800" * 500_000 + "\n" + BLOCK,
    "bom": "\ufeff" * 500_000 + "\n" + BLOCK,
    "ten megabytes": BLOCK + "a" * 10_000_000,
    "a million letters": BLOCK + "a " * 490_000,
    "a million lines": "\n" * 990_000 + BLOCK,
    "fences": "```\n" * 240_000,
    "tildes": "~~~\nx\n" * 100_000,
    "backticks": "`" * 990_000,
    "quotes": "> " * 400_000 + "\n" + BLOCK,
    "quoted fences": "> ```\n" * 100_000,
    "lists": "- " * 400_000 + "\n  " + BLOCK,
    "nested lists": "".join("  " * depth + "- a\n" for depth in range(600)) + " " + BLOCK,
    "numbers": "1. " * 300_000 + "\n " + BLOCK,
    "list of fences": "- ```\n" * 100_000,
    "lines above an indented fence": "\n" * 37_000 + "  ```\n",
    "lines of prose above an indented fence": "a\n" * 16_000 + " ```\n",
    "prose above an indented fence, shorter": "a\n" * 12_000 + " ```\n",
    "lists above an indented fence": "- a\n" * 6_000 + " ```\n",
    "two programs of half the length": "f(a)\n" * 3_600 + "```\n" + "(a)\n" * 4_000 + "= =\n```\n",
    "thinking": "<think>" * 100_000 + BLOCK + "</think>" * 10_000,
    "blocks": "```python\nx = (\n```\n" * 40_000,
    "links": "[" * 900_000 + "\n" + BLOCK,
    "end marks": "<|im_end|>" * 90_000,
    "almost end marks": "<|im_end|>\n" * 90_000 + ".",
}


@pytest.mark.parametrize("extraction", ["single", "last", "bare"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_answered_at_once(text: str, extraction: str) -> None:
    gc.collect()  # the garbage of the tests before is not its own
    assert isinstance(extract_code(text, extraction=extraction), Extraction)
    assert keeps(0.2, partial(extract_code, text, extraction=extraction))


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
    [
        ({"language": "cobol"}, "'cobol'"),
        ({"language": None}, "None"),
        ({"extraction": "best"}, "'best'"),
        ({"extraction": None}, "None"),
    ],
    ids=str,
)
def test_unknown_setting_is_a_config_error_naming_it(settings: dict[str, Any], offender: str) -> None:
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


@pytest.mark.parametrize("size", [0, 1, 3, 20, 31, 300])
@pytest.mark.parametrize("item", ["x", "1", "-1", "'a'", "[x]", "(1, 2)"])
@pytest.mark.parametrize("display", ["[{}]", "({})", "{{{}}}", "{}"], ids=["list", "tuple", "set", "lines"])
def test_a_program_of_values_alone_is_trivial_whatever_its_size(display: str, item: str, size: int) -> None:
    line = display.format("\n".join([item] * size) if display == "{}" else f"{item}," * size if size else "")
    if display == "({})" and not size:
        line = "()"
    assert extract_code(f"```python\n{line}\n```").status is Status.TRIVIAL


def test_a_dictionary_of_values_is_trivial_whatever_its_size() -> None:
    for size in (1, 15, 16, 17, 40, 300):
        for value in ("1", "x", "None", "{'a': [True]}"):
            entries = ", ".join(f"'{number}': {value}" for number in range(size))
            assert extract_code(f"```\n{{{entries}}}\n```").status is Status.TRIVIAL


@pytest.mark.parametrize(
    "line",
    [
        "if 1: x()",
        "x: int",
        "x += 1",
        "global x; x = 1",
        "assert x",
        "raise x",
        "x()",
        "x.y = 1",
        "x = 1",
        "[f(1)]",
        "import x",
        "def f(): pass",
        "x[0]",
        "del x",
        "x + 1",
    ],
)
def test_a_program_with_a_call_or_a_binding_is_not_trivial(line: str) -> None:
    assert extract_code(f"```python\n'doc'\n{line}\n```").status is Status.OK


def blocks_of_a_renderer(text: str) -> list[tuple[int, str]]:
    """Line and code of each fenced block, as CommonMark's reference in Python has them."""
    parser = MarkdownIt("commonmark").disable(["html_block", "reference"])
    return [(token.map[0] + 1, token.content) for token in parser.parse(text) if token.type == "fence" and token.map]


def is_read_otherwise(text: str, found: list[tuple[int, str]]) -> bool:
    """Where this package means to differ: a block that begins with a fence, a fence that ends a list."""
    lines = re.split(r"\r\n|\r|\n", text)
    last = {line + code.count("\n") + 1 for line, code in found}
    return any(re.match(r"\s*(```|~~~)", code) for _, code in found) or any(
        re.match(r"[ \t>]*(```+|~~~+)\s*$", line) and number in last for number, line in enumerate(lines, 1)
    )


@given(
    st.lists(st.sampled_from([*PIECES, "1. ", "* ", "---\n", "# x\n", "\t", "`a`", "  "]), max_size=40).map("".join)
)
@example("- a\n  ```python\n  x\n  ```\n")
@example("---\n```\n---\n")
@example("---\n  ```\n---\n")
@example("prose\n```\nx\n```\nmore\n~~~\n```\n~~~\n")
def test_cutting_lines_to_their_marks_changes_no_block(text: str) -> None:
    text = text.replace("<", "x") + "\n"  # a tag glued to a fence is taken off
    found = blocks_of_a_renderer(text)
    assume(not is_read_otherwise(text, found))
    assert [(block.line, block.text) for block in find_blocks(text)] == found


def test_equal_completions_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(extraction_room, "read", lambda text, *rest: read.append(text) or reader.read(text, *rest))
    extractions = extract_all([BLOCK, "no", BLOCK, BLOCK])
    assert read == [BLOCK, "no"]
    assert [str(extraction.status) for extraction in extractions] == ["ok", "no_block", "ok", "ok"]


def test_a_batch_names_the_completion_that_is_no_text() -> None:
    with pytest.raises(DataError, match="completion 1 is int"):
        extract_all([BLOCK, 1])  # type: ignore[list-item]


def test_a_batch_is_no_single_text() -> None:
    with pytest.raises(DataError, match="texts is one str"):
        extract_all(BLOCK)


OUTPUT = "```\n1 2\n```\n"
OTHER = "```python\ny = 2\n```\n"


@pytest.mark.parametrize(
    ("text", "extraction", "status", "code"),
    [
        pytest.param(BLOCK + OTHER, "last", "ok", "y = 2\n", id="last"),
        pytest.param(BLOCK + OTHER, "first", "ok", "x = 1\n", id="first"),
        pytest.param(BLOCK + OUTPUT, "last", "ok", "x = 1\n", id="last-skips-output"),
        pytest.param("```bash\npip\n```\n" + BLOCK, "first", "ok", "x = 1\n", id="first-skips-shell"),
        pytest.param(BLOCK + "```python\ny = (", "last", "ok", "x = 1\n", id="last-skips-unclosed"),
        pytest.param(OUTPUT + OUTPUT, "last", "syntax_error", "", id="last-none-valid"),
        pytest.param(
            "```python\nx = (\n```\n```text\na\n```\n", "last", "wrong_language", "", id="status-of-the-last"
        ),
        pytest.param("prose", "last", "no_block", "", id="last-no-block"),
        pytest.param("def f():\n    return 1\n", "bare", "ok", "def f():\n    return 1\n", id="bare"),
        pytest.param("<think>\nhm\n</think>\nx = 1", "bare", "ok", "\nx = 1", id="bare-after-thinking"),
        pytest.param("x = 1\n```\n", "bare", "ok", "x = 1\n", id="bare-fence-opened-by-the-prompt"),
        pytest.param("x = 1\n```\nIt sets x.\n", "bare", "ok", "x = 1\n", id="bare-then-prose"),
        pytest.param("Here it is:\n" + BLOCK, "bare", "ok", "x = 1\n", id="bare-takes-a-block"),
        pytest.param("I cannot do this.", "bare", "syntax_error", "", id="bare-prose"),
        pytest.param("", "bare", "no_block", "", id="bare-empty"),
        pytest.param(
            "s = '''\n```\n'''\nprint(s)\n```\nThat is all.\n",
            "bare",
            "ok",
            "s = '''\n```\n'''\nprint(s)\n",
            id="bare-string",
        ),
        pytest.param(
            'def f():\n    """\n    ```\n    f()\n    ```\n    """\n',
            "bare",
            "ok",
            None,
            id="bare-fences-in-docstring",
        ),
    ],
)
def test_policies(text: str, extraction: str, status: str, code: str | None) -> None:
    found = extract_code(text, extraction=extraction)
    assert str(found.status) == status
    assert found.code == (text if code is None else code)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BLOCK, "The block at line 1 of the completion is a python program."),
        ("a", "The completion has no fenced block."),
        ("```x```", "The completion has backticks but no fenced block: a fence stands at the start of its own line."),
        (
            "Here it is:```python\nx\n```\n",
            "The fence at line 1 of the completion stands behind other text: it opens a block at the start of its own line "
            "alone.",
        ),
        (
            "- A:\n  ```python\n  x = 1\ny = 2\n",
            "The block at line 2 of the completion ends with the list or quote around it: its lines need the indentation of "
            "the fence.",
        ),
        ("<think>x", "The completion ends inside its thinking, or nothing follows it."),
        (BLOCK * 2, "The completion has 2 fenced blocks (at lines 1, 4); exactly one is expected."),
        ("a\n```python\nx", "The block at line 2 of the completion never closes, as after a length limit."),
        ("```js\nx\n```", "The block at line 1 of the completion is tagged 'javascript'; python is expected."),
        ("```python\n# x\n```", "The block at line 1 of the completion does nothing."),
        ("```python\nx = \0\n```", "The block at line 1 of the completion holds a NUL byte."),
        ("a" * 1_000_001, "The completion has 1,000,001 characters; at most 1,000,000 are read."),
    ],
    ids=range(12),
)
def test_the_explanation_is_a_sentence_about_this_completion(text: str, sentence: str) -> None:
    assert extract_code(text).explanation == sentence


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think>b", "b"),
        ("a</think>b</think>c", "c"),
        ("b<think>a", "b"),
        ("x = s.split('</think>')", "x = s.split('</think>')"),
        ('y = f"<think>{x}</think>"', 'y = f"<think>{x}</think>"'),
        ("Use `</think>` here", "Use `</think>` here"),
        ("a</think>```python", "```python"),
        ("b<|im_end|>", "b"),
        ("b</s>", "b"),
        ("b\n<|im_end|>\n", "b\n"),
        ("b<｜end▁of▁sentence｜>", "b"),
        ("b</s>" + "<pad>" * 500, "b"),
        ("b<|im_end|>" + "<|endoftext|>" * 500, "b"),
        ("x = '<|im_end|>'", "x = '<|im_end|>'"),
        ("It prints 'yes'</think>\nb", "\nb"),
        ("a call of `f`</think> \r\nb", " \r\nb"),
        ("```\ndraft\n```</think>\nb", "\nb"),
    ],
)
def test_thinking_and_end_marks_are_taken_off_but_not_from_programs(text: str, answer: str) -> None:
    assert without_end_marks(without_reasoning(text).text) == answer


def test_warnings_of_all_but_completions_stay_as_they_were() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(extract_code, ["```python\nx = '\\d'\n```"] * 400))
        assert {extraction.status for extraction in found} == {Status.OK}
        assert [entry for entry in warnings.filters if entry in before] == before
        assert len(warnings.filters) == len(before) + 1
        with pytest.raises(SyntaxError, match="invalid escape"):
            compile("x = '\\d'", "<string>", "exec")


def test_openings_are_read_before_their_completions_and_there_is_one_each() -> None:
    opened, alone = extract_all(["x = 1\n```"] * 2, openings=["```python\n", ""])
    assert (opened.code, alone.status) == ("x = 1\n", Status.UNCLOSED)
    with pytest.raises(DataError, match="1 openings for 2 texts"):
        extract_all(["a", "b"], openings=[""])

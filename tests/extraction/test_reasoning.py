"""Reasoning is taken off a completion, under every family's marks, and nothing else is."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest

from codescaler_plugin import ConfigError, Status, extract_code
from codescaler_plugin.extraction import begun, prompt_opening
from codescaler_plugin.extraction.reasoning import MAX_MARKS, without_reasoning
from tests.processes import keeps

CASES = [json.loads(line) for line in (Path(__file__).parents[1] / "cases" / "answers.jsonl").open(encoding="utf-8")]
DRAFT = "```python\nn = int(input())\nprint(n)\n```\n"
CODE = "n = int(input())\nprint(n * 2)\n"
FINAL = f"```python\n{CODE}```\n"

PAIRS = {
    "think": ("<think>", "</think>"),
    "upper case": ("<THINK>", "</THINK>"),
    "thinking": ("<thinking>", "</thinking>"),
    "thought": ("<thought>", "</thought>"),
    "reasoning": ("<Reasoning>", "</Reasoning>"),
    "seed": ("<seed:think>", "</seed:think>"),
    "mistral": ("[THINK]", "[/THINK]"),
    "cohere": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "cohere response": ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    "openthinker": ("<|begin_of_thought|>", "<|end_of_thought|>"),
    "kimi": ("◁think▷", "◁/think▷"),
    "gemma 4": ("<|channel>thought\n", "<channel|>"),
    "medgemma": ("<unused94>thought\n", "<unused95>"),
    "harmony": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    "harmony with a role": (
        "<|start|>assistant<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final <|constrain|>text<|message|>",
    ),
    "harmony decoded": ("analysis", "assistantfinal"),
}
DRAFTS = {
    "no draft": "Double it.",
    "a draft": f"First:\n{DRAFT}No.",
    "a draft on its own lines": f"\nFirst:\n{DRAFT}No.\n",
    "a draft at the end": f"First:\n{DRAFT}",
    "an open draft": "First:\n```python\nn = int(input())\n",
    "two drafts": f"{'First:'}\n{DRAFT}Then:\n{DRAFT}No.",
    "a quoted word": "It's 'double' and \"twice\": don't print `n`.",
}


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_the_cases_that_users_of_hosts_have_reported(case: dict) -> None:
    found = extract_code(case["text"], language=case["language"], extraction=case["policy"])
    if case["id"] == "K27" and sys.version_info >= (3, 12):  # its syntax is as new
        assert found.status is Status.OK
        return
    assert str(found.status) == case["status"], found.explanation
    if case["code"] is not None:
        assert found.code.strip() == case["code"].strip()


@pytest.mark.parametrize("gap", ["", "\n", "\n\n", " ", "\nHere it is:\n\n", "Here it is:\n"])
@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("extraction", ["single", "last", "first"])
def test_only_what_follows_closed_reasoning_counts(pair: str, draft: str, gap: str, extraction: str) -> None:
    opening, closing = PAIRS[pair]
    found = extract_code(opening + DRAFTS[draft] + closing + gap + FINAL, extraction=extraction)
    assert (found.status, found.code) == (Status.OK, CODE), found.explanation


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("extraction", ["single", "last", "first", "bare"])
def test_reasoning_that_is_cut_is_no_answer(pair: str, draft: str, extraction: str) -> None:
    found = extract_code(PAIRS[pair][0] + DRAFTS[draft], extraction=extraction)
    assert found.status is Status.NO_BLOCK
    assert found.explanation == "The completion ends inside its thinking, or nothing follows it."


@pytest.mark.parametrize("draft", [name for name in DRAFTS if name != "two drafts"] + ["two drafts"])
@pytest.mark.parametrize("pair", [name for name in PAIRS if name != "harmony decoded"])
def test_reasoning_that_the_prompt_opened(pair: str, draft: str) -> None:
    found = extract_code(DRAFTS[draft] + PAIRS[pair][1] + "\n\n" + FINAL)
    assert (found.status, found.code) == (Status.OK, CODE)


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("pair", PAIRS)
def test_reasoning_that_the_prompt_opened_and_a_limit_cut(pair: str, draft: str) -> None:
    opening = prompt_opening("Write it.\n" + PAIRS[pair][0].rstrip("\n") + "\n")
    if pair == "harmony decoded":
        pytest.skip("the prompt of a host that decodes so does not end in a mark")
    assert opening.strip() == PAIRS[pair][0].removeprefix("<|start|>assistant").strip()
    assert extract_code(opening + DRAFTS[draft], extraction="last").status is Status.NO_BLOCK
    assert extract_code(DRAFTS[draft], thinking_prefilled=True, extraction="last").status is Status.NO_BLOCK
    whole = DRAFTS[draft] + PAIRS[pair][1] + "\n" + FINAL
    assert extract_code(whole, thinking_prefilled=True).code == CODE


MENTIONS = {
    "string": 's = input()\nprint(s.split("</think>")[-1])\n',
    "two strings": 's = input()\nprint(s.replace("<think>", "").replace("</think>", ""))\n',
    "comment": "s = input()\n# keep what follows </think> only\nprint(s)\n",
    "comment with both": "s = input()\n# drop <think> and </think>\nprint(s)\n",
    "regular expression": 'import re\nprint(re.sub(r"<think>.*?</think>", "", input(), flags=re.S))\n',
    "anchored": 'import re\nprint(re.fullmatch(r"^<think>(.*)</think>$", input()))\n',
    "docstring": 'def f(s):\n    """Remove the <think> part."""\n    return s\nprint(f(input()))\n',
    "docstring lines": 'def f(s):\n    """Remove\n    <think>\n    and\n    </think>\n    from s.\n    """\n    return s\n',
    "f-string": 'a = input()\nprint(f"[{a}]<think>{a}</think>[{a}]")\n',
    "multi-line string": 's = """\n<think>\nhm\n</think>\n"""\nprint(s)\n',
    "other marks": 'print("[THINK]", "[/THINK]", "<|channel|>final<|message|>", "assistantfinal")\n',
    "only the opening": 's = input()\na = s.find("<think>")\nprint(s[:a])\n',
    "comparison": "think = 3\nx = 5\nprint(1 <think> 2, x)\n",
}


@pytest.mark.parametrize("mention", MENTIONS)
@pytest.mark.parametrize(
    "frame", ["{}", "<think>\nDouble it.\n</think>\n\n{}", "Double it.\n</think>\n{}", "Here:\n\n{}\nDone.\n"]
)
@pytest.mark.parametrize("extraction", ["single", "last", "bare"])
def test_marks_inside_a_program_are_text(mention: str, frame: str, extraction: str) -> None:
    found = extract_code(frame.format(f"```python\n{MENTIONS[mention]}```\n"), extraction=extraction)
    assert (found.status, found.code) == (Status.OK, MENTIONS[mention]), found.explanation


@pytest.mark.parametrize("mention", MENTIONS)
@pytest.mark.parametrize("frame", ["{}", "<think>\nDouble it.\n</think>\n{}"])
def test_marks_inside_a_bare_program_are_text(mention: str, frame: str) -> None:
    if "Double" in frame and mention in ("docstring lines", "multi-line string"):
        pytest.skip("lines of marks alone, after reasoning and without a fence, cannot be told from reasoning")
    found = extract_code(frame.format(MENTIONS[mention]), extraction="bare")
    assert (found.status, found.code.strip()) == (Status.OK, MENTIONS[mention].strip()), found.explanation


PROSE = [
    "What stands before </think> is dropped by it.",
    "It drops everything up to `</think>`.",
    "The <think> tag is removed, and so is </think>.",
    "It removes <think>...</think> from s.",
    'It splits at "</think>" and keeps the rest.',
    "The marks are <think> and </think>",
    "(<think> is left alone)",
    "`s.split('</think>')[-1]` does the rest.",
]


@pytest.mark.parametrize("sentence", PROSE)
@pytest.mark.parametrize(
    "frame", ["{1}\n{0}\n", "{0}\n\n{1}", "{0}\n\n{1}\n{0}\n", "<think>\nHm.\n</think>\n{1}\n{0}\n"]
)
def test_marks_in_prose_are_text(sentence: str, frame: str) -> None:
    found = extract_code(frame.format(sentence, FINAL))
    assert (found.status, found.code) == (Status.OK, CODE), found.explanation


def test_reasoning_may_mention_its_own_mark() -> None:
    text = f'<think>\nThe mark `</think>` ends it, "</think>" too.\n{DRAFT}</think>\n\n{FINAL}'
    assert extract_code(text).code == CODE


TALK = [
    "I should put my reasoning in <think> and </think> tags.",
    "The </think> tag must come last.",
    "I need to close with </think> and then answer.",
    "The user wants <think>...</think> then <answer>.",
    "Example: <think>foo</think>bar becomes bar.",
    "E.g. <think>foo</think> -> ''",
    "let s = '<think>a</think>b', then",
    'so strip "<think>foo</think>bar" to bar.',
    "1. </think> closes it.",
    "The mark `</think>` ends it.",
]


@pytest.mark.parametrize("line", TALK)
@pytest.mark.parametrize(
    "opening", ["<think>\n", "\ufeff<think>\n", "Okay. <think>\n", "好的。<think>\n", "**<think>**\n", ""]
)
def test_reasoning_that_talks_about_its_marks_is_no_answer_when_cut(line: str, opening: str) -> None:
    prefilled = not opening
    cut = extract_code(f"{opening}{line}\n{DRAFT}No, wrong.", extraction="last", thinking_prefilled=prefilled)
    assert cut.status is Status.NO_BLOCK
    whole = f"{opening}{line}\n{DRAFT}No, wrong.\n</think>\n\n{FINAL}"
    assert extract_code(whole, thinking_prefilled=prefilled).code == CODE


@pytest.mark.parametrize(
    "line",
    [
        "I must answer in a ```python block.",
        "f'(x) = 2x, so the answer is",
        'A 12" board.',
        "path C:\\",
        'The output is "Case #x: y" where ' + "x" * 195,
        "That works.",
    ],
)
@pytest.mark.parametrize("after", ["", "Here's the code:\n\n", 'The "board":\n', "Here is `f`:\n\n", "\n"])
def test_quotes_in_reasoning_hide_no_mark(line: str, after: str) -> None:
    for opening, closing in PAIRS.values():
        assert extract_code(opening + line + closing + after + FINAL).code == CODE
        if "```" not in line:  # nor does a draft that was left open
            assert extract_code(f"{opening}Try\n```python\nn = 1\n{line}{closing}{after}{FINAL}").code == CODE


@pytest.mark.parametrize(
    "heading", ["Analysis\n\n", "ANALYSIS\n", "Analysis\n--------\n", "Analysis: fine.\n", "Analysis：双倍。\n"]
)
def test_a_heading_is_no_header_of_gpt_oss(heading: str) -> None:
    assert extract_code(heading + FINAL).code == CODE


@pytest.mark.parametrize(
    "text",
    [
        "> ```python\n>",
        ">  ```python\n>  x = 1\n>",
        "> - ```python\n>   x = 1\n> ",
        "> 1. Here:\n>\n>    ```\n>    x\n>",
    ],
)
@pytest.mark.parametrize("extraction", ["single", "last", "bare"])
def test_a_quote_that_is_cut_in_an_empty_line(text: str, extraction: str) -> None:
    assert extract_code(text, extraction=extraction).status in (Status.UNCLOSED, Status.SYNTAX_ERROR)
    prompt_opening(text)


def test_an_answer_before_a_second_thought_counts_where_nothing_follows() -> None:
    assert extract_code(f"{FINAL}\n<think>\nIs it right? Yes.\n</think>\nDone.\n").code == CODE
    assert extract_code(f"{DRAFT}\n<think>\nNo.\n</think>\n{FINAL}").code == CODE
    assert extract_code(f"<think>\na\n</think>\nNow:\n<think>\n{DRAFT}</think>\n{FINAL}").code == CODE


def test_marks_of_a_setting_are_reasoning_too() -> None:
    text = f"<plan>\n{DRAFT}</plan>\n{FINAL}"
    assert extract_code(text).status is Status.MULTIPLE_BLOCKS
    assert extract_code(text, reasoning_marks="<plan> </plan> <<< >>>").code == CODE


@pytest.mark.parametrize("marks", ["<plan>", "plan end", "< >"])
def test_marks_that_are_no_pairs_are_a_config_error(marks: str) -> None:
    with pytest.raises(ConfigError, match="opening and closing marks in turn"):
        extract_code("", reasoning_marks=marks)


@pytest.mark.parametrize(
    ("prompt", "opening"),
    [
        ("<|im_start|>assistant\n<think>\n", "<think>\n"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", ""),
        ("<|im_start|>assistant\n", ""),
        ("<｜Assistant｜><think>\n", "<think>\n"),
        ("[/INST][THINK]", "[THINK]"),
        ("Wrap your thoughts in <think>", ""),
        ("Use `<think>`", ""),
        ("", ""),
        ("<|start|>assistant<|channel|>analysis<|message|>", "<|channel|>analysis<|message|>"),
        ("<|start|>assistant", ""),
        ("Write it.\n\n```python\n", "```python\n"),
        ("Write it.\n\n```", "```"),
        ("Print:\n```\n1 2\n```\n", ""),
        ("Complete:\n```python\ndef f():\n", ""),
        ("<|im_start|>assistant\nHere it is:\n~~~py\n", "~~~py\n"),
    ],
)
def test_what_a_prompt_opens(prompt: str, opening: str) -> None:
    assert prompt_opening(prompt) == opening


@pytest.mark.parametrize("extraction", ["single", "last", "first", "bare"])
def test_a_fence_that_the_prompt_opened(extraction: str) -> None:
    texts = {
        "n = int(input())\nprint(n * 2)\n```\nDone.": "```python\n",
        "python\nn = int(input())\nprint(n * 2)\n```": "```",
        "python3\nn = int(input())\nprint(n * 2)\n```\n": "```",
        FINAL: "```python\n",
        "n = int(input())\nprint(n * 2)\n```\n\n```\n4\n```\n": "```\n",
    }
    for text, opening in texts.items():
        if not (extraction == "single" and text.endswith("4\n```\n")):
            assert extract_code(opening + text, extraction=extraction).code == CODE
            assert extract_code(text, extraction=extraction, fence_prefilled=True).code == CODE
    assert extract_code("```python\nn = int(input())\n").status is Status.UNCLOSED
    assert extract_code("n = int(input())\n", fence_prefilled=True).status is Status.UNCLOSED
    assert extract_code("Here it is:\n\n" + FINAL, fence_prefilled=True).code == CODE


def test_a_draft_that_the_prompt_began_inside_reasoning_is_no_answer() -> None:
    opening = prompt_opening("<think>\nFirst:\n```python\nn = 1\n", is_reply=True)
    assert extract_code(begun(opening, "print(n)\n```\nNo.\n" + DRAFT)).status is Status.NO_BLOCK
    assert extract_code(begun(opening, "print(n)\n```\nNo.\n</think>\n" + FINAL)).code == CODE


def test_what_the_prompt_has_written_of_the_program_is_part_of_it() -> None:
    opening = prompt_opening("Here it is:\n```python\nn = int(input())\n", is_reply=True)
    assert extract_code(begun(opening, "print(n * 2)\n```\nDone.")).code == CODE
    assert extract_code(begun(opening, FINAL)).code == CODE
    assert prompt_opening("<think>\n\n</think>\n\n", is_reply=True) == ""
    assert prompt_opening("Sure, here it is: ", is_reply=True) == ""


HOSTILE = {
    "openings": "<think>" * 900,
    "closings": "</think>" * 900,
    "marks in one long line": ("</think> a" + "x" * 900) * 900,
    "marks and fences": "</think>\n```\n" * 900,
    "marks in fences": ("```python\n</think>\n" * 900) + "```\n",
    "quotes": ("\"'`" * 60 + "</think>") * 900,
    "channels": "<|channel|>analysis" * 50_000,
    "constrained": "<|channel|>final" + "<|constrain|>" * 70_000,
    "analysis": "analysis" + "assistantfina" * 70_000,
    "too many": "<think>" * 100_000,
    "a fence in a fence": "```\n" + "~" * 90_000 + "```\n" + "`" * 90_000,
    "almost": "<|start|>assistant" * 50_000 + "<think>",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_marks_are_read_at_once(text: str) -> None:
    assert keeps(0.2, partial(extract_code, text + "\n" + FINAL))


def test_more_marks_than_are_read_is_too_complex() -> None:
    found = extract_code("<think></think>" * MAX_MARKS)
    assert (found.status, found.explanation) == (
        Status.TOO_COMPLEX,
        "The completion has too many marks of reasoning to be read.",
    )


def test_text_without_marks_is_returned_as_it_is() -> None:
    text = "I think this is final.\n" + FINAL
    assert without_reasoning(text).text is text

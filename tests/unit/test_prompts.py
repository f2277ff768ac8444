"""Chat templates are undone as their tokenizers made them."""

from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment

from codescaler_plugin.errors import DataError
from codescaler_plugin.text.templates import response, user_turn

PROBLEM = "Write solve(n).\n\nIt returns n + 1.\n    indented"

TEMPLATED = {
    "chatml": "<|im_start|>user\n{p}<|im_end|>\n<|im_start|>assistant\n",
    "chatml_system": "<|im_start|>system\nBe good.<|im_end|>\n<|im_start|>user\n{p}<|im_end|>\n<|im_start|>assistant\n",
    "chatml_thinking": "<|im_start|>user\n{p}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe good.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{p}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "llama2": "<s>[INST] <<SYS>>\nBe good.\n<</SYS>>\n\n{p} [/INST]",
    "mistral": "<s>[INST] {p} [/INST]",
    "mistral_v7": "<s>[SYSTEM_PROMPT]Be good.[/SYSTEM_PROMPT][INST]{p}[/INST]",
    "deepseek": "<｜begin▁of▁sentence｜>Be good.<｜User｜>{p}<｜Assistant｜>",
    "deepseek_r1": "<｜begin▁of▁sentence｜><｜User｜>{p}<｜Assistant｜><think>\n",
    "gemma": "<bos><start_of_turn>user\n{p}<end_of_turn>\n<start_of_turn>model\n",
    "bare_chatml": "system\nBe good.\nuser\n{p}\nassistant\n",
    "bare_chatml_thinking": "user\n{p}\nassistant\n<think>\n",
    "bare_llama3": "system\n\nBe good.user\n\n{p}assistant\n\n",
}


REAL = [f"{name}.jinja" for name in ("qwen2_5", "qwen3", "qwen3_5_think", "qwen3_instruct_2507", "qwen3_8", "llama3")]
REAL += [
    f"{name}.jinja"
    for name in ("llama3_1", "llama3_2", "gemma", "gemma3", "gemma4", "deepseekv3", "deepseek_r1_distill")
]


@pytest.mark.parametrize("name", TEMPLATED)
def test_the_problem_of_each_template(name: str) -> None:
    assert user_turn(TEMPLATED[name].replace("{p}", PROBLEM)) == PROBLEM


@pytest.mark.parametrize("name", [name for name in TEMPLATED if not name.startswith("bare")])
def test_the_last_of_several_user_turns_is_taken(name: str) -> None:
    first = TEMPLATED[name].replace("{p}", "An earlier question.")
    ends = {"chatml": "<|im_end|>\n", "llama": "<|eot_id|>", "gemma": "<end_of_turn>\n"}
    end = next((mark for family, mark in ends.items() if name.startswith(family) and name != "llama2"), "</s>")
    later = TEMPLATED[name].replace("{p}", PROBLEM).removeprefix("<s>").removeprefix("<bos>")
    assert user_turn(f"{first}An answer.{end}{later}") == PROBLEM


def test_several_turns_without_special_tokens() -> None:
    text = "system\nBe good.\nuser\nA question.\nassistant\nAn answer.\nuser\n" + PROBLEM + "\nassistant\n"
    assert user_turn(text) == PROBLEM


@pytest.mark.parametrize(
    "text",
    ["", "Write solve(n).", "What does [INST] mean?", "A user\nis a user\n", "Explain <|im_start|>user\nx<|im_end|>."],
)
def test_text_that_does_not_begin_as_a_template_stays(text: str) -> None:
    assert user_turn(text) == text


def test_a_prompt_cut_from_the_left_is_an_error() -> None:
    with pytest.raises(DataError, match=r"row 3 has no user turn.*cut from the left"):
        user_turn("the end of the problem.<|im_end|>\n<|im_start|>assistant\n", "row 3")


@pytest.mark.parametrize("name", REAL)
def test_the_real_templates_that_trl_ships(name: str) -> None:
    pytest.importorskip("trl")
    template = files("trl") / "chat_templates" / name
    if not template.is_file():
        pytest.skip(f"this TRL ships no {name}")
    environment = Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.globals["raise_exception"] = lambda message: message
    environment.globals["strftime_now"] = lambda form: "1 January"
    turns = [{"role": "user", "content": PROBLEM}]
    text = environment.from_string(template.read_text()).render(
        messages=turns, add_generation_prompt=True, bos_token="", eos_token=""
    )
    assert text != PROBLEM
    assert user_turn(text) == PROBLEM


@given(st.text(st.characters(codec="utf-8", exclude_characters="<[>]｜"), min_size=1).map(str.strip).filter(bool))
def test_any_problem_survives_the_templates(problem: str) -> None:
    for name in ("chatml", "llama3", "deepseek", "gemma", "mistral"):
        assert user_turn(TEMPLATED[name].replace("{p}", problem)) == problem


def test_the_response_is_what_follows_the_prompt() -> None:
    prompt = TEMPLATED["chatml"].replace("{p}", "Do it.")
    assert response(prompt + "Done.", prompt) == "Done."


END_MARKS = [
    "<|im_end|>",
    "<|eot_id|>",
    "</s>",
    "<｜end▁of▁sentence｜>",
    "<end_of_turn>\n<eos>",
    "<turn|>",
    "<|im_end|>\n",
]


@pytest.mark.parametrize("end", [*END_MARKS, "<|im_end|>" + "<|endoftext|>" * 500, "</s>" * 500, "<pad>" * 500])
def test_marks_behind_the_response_are_no_part_of_it(end: str) -> None:
    prompt = TEMPLATED["chatml"].replace("{p}", "Do it.")
    assert response(prompt + "It prints '<|im_end|>'.\n" + end, prompt) == "It prints '<|im_end|>'.\n"


@pytest.mark.parametrize(
    ("name", "pad"), [("chatml", "<|endoftext|>"), ("llama3", "<|eot_id|>"), ("deepseek", "<｜end▁of▁sentence｜>")]
)
def test_padding_on_the_left_hides_no_user_turn(name: str, pad: str) -> None:  # OpenRLHF up to 0.5
    assert user_turn(pad * 50 + TEMPLATED[name].replace("{p}", PROBLEM)) == PROBLEM


def test_the_response_of_a_query_cut_from_the_left() -> None:
    prompt = TEMPLATED["chatml"].replace("{p}", "A long problem.")
    assert response("problem.<|im_end|>\n<|im_start|>assistant\nDone.", prompt) == "Done."


def test_a_query_without_any_mark_is_the_response() -> None:
    assert response("Done.", "") == "Done."

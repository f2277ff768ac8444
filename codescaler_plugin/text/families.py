"""The chat templates of public model families, one row for each."""

import re
from typing import Any

from codescaler_plugin.text.templates import ENDS, LAST, PADDING, PREFILL, Template

_NEVER = r"(?!)"
_GAP = r"\s{0,8}(?:(?:<s>|<bos>|<\|begin_of_text\|>|<｜begin▁of▁sentence｜>)\s{0,8})?"  # between two turns
_END_OF_LINE = r"\n?"


def _family(
    name: str,
    user: str,
    reply: str,
    end: str = "",
    other: str = _NEVER,
    *,
    lead: str = _NEVER,
    before: str = "",
    needs: str = "",
    system: str = "",
    prose: bool = False,
    **flags: Any,
) -> Template:
    """A row of the table. Everything but `name` is a regular expression.

    Without an `end` that must close a turn, a header alone divides turns. `lead` stands before a system text without a
    header, and `before` must stand before the first header. Marks of `prose` are common elsewhere: without `needs`,
    only a text with a generation prompt is of the family.
    """
    headers = rf"(?P<user>{user})|(?P<reply>{reply})|(?P<other>{other})"
    return Template(
        name=name,
        padding=PADDING,
        opening=re.compile(rf"{before}(?:{headers}|(?P<lead>{lead}))"),
        boundary=re.compile(rf"(?:{end}){_GAP}(?:{headers})" if end else headers),
        last=re.compile(rf"(?:{end or _END_OF_LINE}){LAST}"),
        closing=re.compile(rf"(?:{reply}){PREFILL}"),
        reply=re.compile(reply),
        ends=ENDS,
        needs=re.compile(needs) if needs else None,
        system=re.compile(system) if system else None,
        closed=prose and not needs,
        prose=prose,
        **flags,
    )


_ROLE = r"(?!(?:user|assistant|model)\b)[\w.-]{1,40}"


def _framed(name: str, header: str, end: str, reply: str = "assistant", **flags: Any) -> Template:
    """A row whose headers differ in the name of the role alone, which stands for `ROLE` in `header`."""
    user, assistant, other = (header.replace("ROLE", role) for role in ("user", reply, _ROLE))
    return _family(name, user, assistant, end, other, **flags)


# A row has the name, the headers of a user's and an assistant's turn, the end of a turn, and other headers.
# fmt: off
FAMILIES = (
    _framed("phi-4", r"<\|im_start\|>ROLE<\|im_sep\|>", r"<\|im_end\|>"),
    # Qwen, Yi, InternLM 2, LFM2, SmolLM3, OLMo 3, Nemotron 3, MiMo: a tool's reply is in a user's turn
    _family("chatml", r"<\|im_start\|>user\n(?!<tool_response>)", r"<\|im_start\|>assistant(?:\n|\Z)", r"<\|im_end\|>",
            rf"<\|im_start\|>(?:{_ROLE}|user)\n"),
    _framed("llama 3", r"<\|start_header_id\|>ROLE<\|end_header_id\|>\n\n?", r"<\|(?:eot_id|eom_id)\|>"),
    _framed("llama 4", r"<\|header_start\|>ROLE<\|header_end\|>\n\n", r"<\|(?:eot|eom)\|>"),
    _framed("gemma", r"<start_of_turn>ROLE\n", r"<end_of_turn>", reply="model", alternates=True),
    _framed("gemma 4", r"<\|turn>ROLE\n", r"<turn\|>", reply="model"),
    _family("llama 2, mistral", r"\[INST\] ?", r" ?\[/INST\]",
            other=r"\[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|MODEL_SETTINGS)\]", lead=r"<<SYS>>\n", needs=r"\[/INST\]",
            system=r"\A<<SYS>>\n[\s\S]*?\n<</SYS>>\n\n", shy=True, alternates=True),
    _family("deepseek", r"<｜User｜>", r"<｜Assistant｜>", lead=r"(?<=<｜begin▁of▁sentence｜>)", loose=True),
    _family("deepseek 2", r"(?:(?<=<｜begin▁of▁sentence｜>)|(?<=<｜end▁of▁sentence｜>)|(?<=\n\n))User: ",
            r"\n\nAssistant:", lead=r"(?<=<｜begin▁of▁sentence｜>)", alternates=True, prose=True),
    # GLM 4.5 may write `/nothink` behind the problem
    _family("glm", r"<\|user\|>(?:\n ?)?", r"(?:/nothink)?<\|assistant\|>\n?",
            other=r"<\|(?:system|observation)\|>\n?", before=r"(?:(?<=sop>)|(?<=\]sop))"),
    _family("phi-3", r"<\|user\|>\n?", r"<\|assistant\|>\n?", r"<\|end\|>", r"<\|(?:system|tool|tool_response)\|>\n?",
            needs=r"<\|end\|>\s{0,2}(?:<|\Z)"),
    _family("zephyr", r"<\|user\|>\n", r"<\|assistant\|>\n", r"</s>", r"<\|system\|>\n", needs=r"</s>\s{0,2}(?:<|\Z)"),
    # Tulu, Falcon 3, Granite Code, Moxin, GLM Edge
    _family("olmo", r"<\|user\|>\n ?", r"(?:<\|endof(?:text|turn)\|>)?\n?<\|assistant\|>\n?",
            other=r"<\|(?:system|observation)\|>\n?", needs=r"<\|assistant\|>"),
    # gpt-oss, Muse
    _family("harmony", r"<\|start\|>user<\|message\|>",
            r"<\|start\|>assistant(?:[^<]{0,80}(?:<\|channel\|>[^<]{0,80})?<\|message\|>)?",
            r"<\|(?:end|return|call|eot)\|>",
            rf"<\|start\|>{_ROLE}[^<]{{0,80}}(?:<\|channel\|>[^<]{{0,80}})?<\|message\|>"),
    _family("granite", r"<\|start_of_role\|>user<\|end_of_role\|>",
            r"<\|start_of_role\|>assistant[^<]{0,80}<\|end_of_role\|>", r"<\|end_of_text\|>",
            rf"<\|start_of_role\|>{_ROLE}[^<]{{0,80}}<\|end_of_role\|>"),
    _family("cohere", r"<\|START_OF_TURN_TOKEN\|><\|USER_TOKEN\|>",
            r"<\|START_OF_TURN_TOKEN\|><\|CHATBOT_TOKEN\|>(?:<\|START_RESPONSE\|>)?", r"<\|END_OF_TURN_TOKEN\|>",
            r"<\|START_OF_TURN_TOKEN\|><\|SYSTEM_TOKEN\|>"),
    _family("kimi", r"<\|im_user\|>[^<\n]{1,60}<\|im_middle\|>", r"<\|im_assistant\|>[^<\n]{1,60}<\|im_middle\|>",
            r"<\|im_end\|>", r"<\|im_system\|>[^<\n]{1,60}<\|im_middle\|>"),
    _family("seed", r"<seed:bos>user\n", r"<seed:bos>assistant\n?", r"<seed:eos>", r"<seed:bos>(?:system|tool)\n?"),
    _family("minimax 2", r"\]~b\]user\n", r"\]~b\]ai\n", r"\[e~\[", rf"\]~b\]{_ROLE}\n"),
    _family("minimax 1", r"<beginning_of_sentence>user[^<\n]{0,60}\n", r"<beginning_of_sentence>ai[^<\n]{0,60}\n",
            r"<end_of_sentence>", r"<beginning_of_sentence>(?:system|tool)[^<\n]{0,60}\n"),
    _family("exaone", r"\[\|user\|\]\n?", r"(?:\[\|endofturn\|\])?\n?\[\|assistant\|\]\n?",
            other=r"\[\|(?:system|tool)\|\]", needs=r"\[\|assistant\|\]"),
    _family("hunyuan", r"(?:<｜hy_place▁holder▁no▁3｜>)?<｜hy_User｜>", r"<｜hy_Assistant｜>",
            lead=r"(?<=<｜hy_begin▁of▁sentence｜>)", loose=True),
    # the mark that ends a user's turn is the header of the reply
    _family("hunyuan a13b", r"(?<=<\|startoftext\|>)", r"<\|extra_0\|>", needs=r"<\|extra_0\|>",
            system=r"\A[\s\S]*?<\|extra_4\|>", alternates=True),
    # Nemotron 4, Nemotron Nano 2
    _family("nemotron", r"<(?:extra_id_1|SPECIAL_11)>User\n", r"\n?<(?:extra_id_1|SPECIAL_11)>Assistant\n",
            other=r"<(?:extra_id_0|SPECIAL_10)>System\n", shy=True),
    _family("monarch", r"(?<=<s>)user\n", r"(?<=<s>)assistant\n", r"</s>", r"(?<=<s>)system\n"),
    _family("baichuan", r"<reserved_10[26]>", r"<reserved_10[37]>", shy=True),
    _family("internlm 1", r"<\|User\|>:", r"<\|Bot\|>:", r"<eo[ah]>", r"<\|System\|>:"),
    _framed("megrez", r"<\|role_start\|>ROLE<\|role_end\|>", r"<\|turn_end\|>"),
    _family("apertus", r"<\|user_start\|>", r"<\|assistant_start\|>", r"<\|(?:user|assistant|system|developer)_end\|>",
            r"<\|(?:system|developer)_start\|>"),
    _family("dots", r"<\|userprompt\|>", r"<\|response\|>", r"<\|endof(?:userprompt|response|system)\|>",
            r"<\|system\|>"),
    _family("ling", r"<role>HUMAN</role>", r"(?:<\|role_end\|>)?<role>ASSISTANT</role>",
            other=r"<role>(?:SYSTEM|OBSERVATION)</role>", shy=True),
    _family("minicpm", r"<用户>", r"<AI>", before=r"(?=<用户>)", prose=True),
    _family("openchat", r"GPT4 Correct User: ", r"GPT4 Correct Assistant:", r"<\|end_of_turn\|>",
            r"GPT4 Correct System: ", needs=r"<\|end_of_turn\|>", prose=True),
    # Idefics 3, SmolVLM
    _family("idefics", r"(?:<\|im_start\|>)?User: ?", r"Assistant:", r"<end_of_utterance>",
            r"(?:<\|im_start\|>)?System: ?", needs=r"<end_of_utterance>\n", prose=True),
    # DeepSeek Coder, Alpaca
    _family("instruction", r"(?:(?<![^\n])|(?<=</s>))### Instruction:\n", r"\n{1,2}### Response:\n?", lead="",
            alternates=True, prose=True),
)
# fmt: on

"""Prompts as chat templates make them, and the real templates of TRL."""

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template  # here: no test pays for the import

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
# name: system turn, user's turn with the header of the answer, what ends an answer
FAMILIES = {
    "llama4": (
        "<|begin_of_text|><|header_start|>system<|header_end|>\n\nBe good.<|eot|>",
        "<|header_start|>user<|header_end|>\n\n{p}<|eot|><|header_start|>assistant<|header_end|>\n\n",
        "<|eot|>",
    ),
    "lfm2": (
        "<|startoftext|><|im_start|>system\nBe good.<|im_end|>\n",
        "<|im_start|>user\n{p}<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>\n",
    ),
    "internlm2": (
        "<s><|im_start|>system\nBe good.<|im_end|>\n",
        "<|im_start|>user\n{p}<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>\n",
    ),
    "phi3": ("<|system|>\nBe good.<|end|>\n", "<|user|>\n{p}<|end|>\n<|assistant|>\n", "<|end|>\n"),
    "phi4_mini": ("<|system|>Be good.<|end|>", "<|user|>{p}<|end|><|assistant|>", "<|end|>"),
    "phi4": (
        "<|im_start|>system<|im_sep|>Be good.<|im_end|>",
        "<|im_start|>user<|im_sep|>{p}<|im_end|><|im_start|>assistant<|im_sep|>",
        "<|im_end|>",
    ),
    "glm4": ("[gMASK]<sop><|system|>\nBe good.", "<|user|>\n{p}<|assistant|>\n", ""),
    "glm4.5": ("[gMASK]<sop><|system|>\nBe good.", "<|user|>\n{p}<|assistant|>", ""),
    "glm4.5_nothink": ("[gMASK]<sop><|system|>\nBe good.", "<|user|>\n{p}/nothink<|assistant|>\n<think></think>", ""),
    "chatglm3": ("[gMASK]sop<|system|>\n Be good.", "<|user|>\n {p}<|assistant|>", ""),
    "glm_edge": ("<|system|>\nBe good.", "<|user|>\n{p}<|assistant|>", ""),
    "gpt_oss": (
        "<|start|>system<|message|>You are ChatGPT.<|end|><|start|>developer<|message|># Instructions\n\nBe good.\n\n<|end|>",
        "<|start|>user<|message|>{p}<|end|><|start|>assistant",
        "<|end|>",
    ),
    "muse": (
        "<|start|>system<|message|>Be good.<|eot|>",
        "<|start|>user<|message|>{p}<|eot|><|start|>assistant",
        "<|eot|>",
    ),
    "granite": (
        "<|start_of_role|>system<|end_of_role|>Be good.<|end_of_text|>\n",
        "<|start_of_role|>user<|end_of_role|>{p}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
        "<|end_of_text|>\n",
    ),
    "cohere": (
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be good.<|END_OF_TURN_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{p}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
    ),
    "cohere2": (
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be good.<|END_OF_TURN_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{p}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>",
        "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
    ),
    "kimi": (
        "<|im_system|>system<|im_middle|>Be good.<|im_end|>",
        "<|im_user|>user<|im_middle|>{p}<|im_end|><|im_assistant|>assistant<|im_middle|>",
        "<|im_end|>",
    ),
    "seed": (
        "<seed:bos>system\nBe good.<seed:eos>",
        "<seed:bos>user\n{p}<seed:eos><seed:bos>assistant\n",
        "<seed:eos>",
    ),
    "minimax2": ("]~!b[]~b]system\nBe good.[e~[\n", "]~b]user\n{p}[e~[\n]~b]ai\n<think>\n", "[e~[\n"),
    "minimax1": (
        "<begin_of_document><beginning_of_sentence>system ai_setting=MiniMax AI\nBe good.<end_of_sentence>\n",
        "<beginning_of_sentence>user name=user\n{p}<end_of_sentence>\n<beginning_of_sentence>ai name=MiniMax AI\n",
        "<end_of_sentence>\n",
    ),
    "exaone": ("[|system|]Be good.[|endofturn|]\n", "[|user|]{p}\n[|assistant|]", "[|endofturn|]\n"),
    "exaone4": (
        "[|system|]\nBe good.[|endofturn|]\n",
        "[|user|]\n{p}[|endofturn|]\n[|assistant|]\n<think>\n",
        "[|endofturn|]\n",
    ),
    "olmo": ("<|endoftext|><|system|>\nBe good.\n", "<|user|>\n{p}\n<|assistant|>\n", "<|endoftext|>\n"),
    "hunyuan": (
        "<｜hy_begin▁of▁sentence｜>Be good.<｜hy_place▁holder▁no▁3｜>",
        "<｜hy_User｜>{p}<｜hy_Assistant｜>",
        "<｜hy_place▁holder▁no▁2｜>",
    ),
    "hunyuan_a13b": ("", "<|startoftext|>{p}<|extra_0|>", "<|eos|>"),
    "nemotron": ("<extra_id_0>System\nBe good.\n\n", "<extra_id_1>User\n{p}\n<extra_id_1>Assistant\n", "\n"),
    "nemotron_nano2": (
        "<SPECIAL_10>System\nBe good.\n\n",
        "<SPECIAL_11>User\n{p}\n<SPECIAL_11>Assistant\n<think>\n\n",
        "\n<SPECIAL_12>\n\n",
    ),
    "deepseek_coder": (
        "<｜begin▁of▁sentence｜>You are an AI programming assistant.\n",
        "### Instruction:\n{p}\n### Response:\n",
        "\n<|EOT|>\n",
    ),
    "alpaca": (
        "Below is an instruction that describes a task.\n\n",
        "### Instruction:\n{p}\n\n### Response:\n",
        "</s>",
    ),
    "deepseek2": ("<｜begin▁of▁sentence｜>Be good.\n\n", "User: {p}\n\nAssistant:", "<｜end▁of▁sentence｜>"),
    "zephyr": ("<|system|>\nBe good.</s>\n", "<|user|>\n{p}</s>\n<|assistant|>\n", "</s>\n"),
    "gemma4": ("<bos><|turn>system\nBe good.<turn|>\n", "<|turn>user\n{p}<turn|>\n<|turn>model\n", "<turn|>\n"),
    "baichuan": ("", "<reserved_106>{p}<reserved_107>", ""),
    "internlm": ("<s>", "<|User|>:{p}<eoh>\n<|Bot|>:", "<eoa>\n"),
    "monarch": ("<s>system\nBe good.</s>\n", "<s>user\n{p}</s>\n<s>assistant\n", "</s>\n"),
    "megrez": (
        "<|role_start|>system<|role_end|>Be good.<|turn_end|>",
        "<|role_start|>user<|role_end|>{p}<|turn_end|><|role_start|>assistant<|role_end|>",
        "<|turn_end|>",
    ),
    "apertus": (
        "<s><|system_start|>Be good.<|system_end|><|developer_start|>Deliberation: disabled<|developer_end|>",
        "<|user_start|>{p}<|user_end|><|assistant_start|>",
        "<|assistant_end|>",
    ),
    "dots": (
        "<|system|>Be good.<|endofsystem|>",
        "<|userprompt|>{p}<|endofuserprompt|><|response|>",
        "<|endofresponse|>",
    ),
    "ling": ("<role>SYSTEM</role>Be good.", "<role>HUMAN</role>{p}<role>ASSISTANT</role>", ""),
    "ling2": (
        "<role>SYSTEM</role>Be good.<|role_end|>",
        "<role>HUMAN</role>{p}<|role_end|><role>ASSISTANT</role>",
        "<|role_end|>",
    ),
    "minicpm": ("<s>", "<用户>{p}<AI>", ""),
    "openchat": (
        "<s>GPT4 Correct System: Be good.<|end_of_turn|>",
        "GPT4 Correct User: {p}<|end_of_turn|>GPT4 Correct Assistant:",
        "<|end_of_turn|>",
    ),
    "idefics": (
        "<|begin_of_text|>System: Be good.<end_of_utterance>\n",
        "User: {p}<end_of_utterance>\nAssistant:",
        "<end_of_utterance>\n",
    ),
    "llava": ("<<SYS>>\nBe good.\n<</SYS>>\n\n", "[INST] {p} [/INST]", "</s>"),
}
PROSE = ("deepseek_coder", "alpaca", "deepseek2", "minicpm", "openchat", "idefics")
TRL = files("trl") / "chat_templates" if pytest.importorskip("trl") else None
REAL = sorted(path.name for path in TRL.iterdir() if path.name.endswith(".jinja"))


def turns(*texts: str, system: str = "") -> list[dict[str, str]]:
    """A conversation that ends with a user's turn."""
    messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]
    return [{"role": "system", "content": system}, *messages] if system else messages


def rendered(template: str, messages: list[dict[str, Any]], **settings: Any) -> Iterator[str]:
    """What a template makes of messages, as strings and as parts; a template that loses the text gives nothing."""
    parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    for form in (messages, parts):
        try:
            texts, _ = render_jinja_template(
                [form],
                chat_template=template,
                **{"add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>", **settings},
            )
        except Exception:  # noqa: BLE001 - a template raises what it likes
            continue
        if messages[-1]["content"] in texts[0]:
            yield texts[0]

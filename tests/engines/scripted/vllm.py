"""Takes vLLM's place on PYTHONPATH, also in Ray's processes: the names that OpenRLHF 0.11.2 imports, and an engine that
gives the answers in the JSON file VLLM_ANSWERS (prompt: its answers), one per request, ended by EOS."""

import asyncio
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__version__ = "0.29.0"
sys.modules["vllm.inputs"] = sys.modules["vllm.utils"] = sys.modules[__name__]
TokensPrompt = dict
_requests = itertools.count()


def random_uuid() -> str:
    return str(next(_requests))


class SamplingParams(SimpleNamespace):
    pass


class AsyncEngineArgs(SimpleNamespace):
    pass


class AsyncLLMEngine:
    def __init__(self, tokenizer: Any, answers: dict[str, list[str]]) -> None:
        self.tokenizer = tokenizer
        self.answers = {prompt: iter(texts) for prompt, texts in answers.items()}
        self.unfinished = 0
        self.output_processor = SimpleNamespace(get_num_unfinished_requests=lambda: self.unfinished)

    @classmethod
    def from_engine_args(cls, args: AsyncEngineArgs) -> "AsyncLLMEngine":
        from transformers import AutoTokenizer

        answers = json.loads(Path(os.environ["VLLM_ANSWERS"]).read_text())
        return cls(AutoTokenizer.from_pretrained(args.model), answers)

    async def is_sleeping(self) -> bool:
        return False

    async def generate(self, prompt: Any, sampling_params: SamplingParams, request_id: str) -> AsyncIterator[Any]:
        """The answer's first half, then all of it: as vLLM, the output so far, each time whole."""
        text = next(self.answers[self.tokenizer.decode(prompt["prompt_token_ids"], skip_special_tokens=False)])
        ids = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
        assert len(ids) <= sampling_params.max_tokens
        self.unfinished += 1
        for end, reason in ((len(ids) // 2, None), (len(ids), "stop")):
            await asyncio.sleep(0.01)
            output = SimpleNamespace(token_ids=ids[:end], text=text, finish_reason=reason, logprobs=None)
            yield SimpleNamespace(request_id=request_id, outputs=[output])
        self.unfinished -= 1

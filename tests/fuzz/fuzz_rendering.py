"""Coverage-guided fuzzing of rendering; see tests/README.md. Not collected by pytest.

Any exception, any call over 200 ms of CPU, any control token that the template did not put there, any row that is too
long or does not end as the template ends, and any lost code ends the run and writes the input to a file.
"""

import contextlib
import os
import re
import sys
from time import thread_time
from unicodedata import normalize

import atheris

with atheris.instrument_imports(include=["codescaler_plugin"]):
    from codescaler_plugin import DataError
    from codescaler_plugin.scoring.rendering import Renderer, Unscorable, unwrapped

from transformers import AutoTokenizer

from codescaler_plugin import testing
from tests.fuzz.pieces import text_of

SECONDS = 0.2
MAX_CHARS = 3000  # of a problem or program: a tokenizer's own time on long text is not what is looked for
folder = os.environ.get("QWEN3_TOKENIZER")
TOKENIZER = AutoTokenizer.from_pretrained(folder) if folder else testing.tiny_tokenizer()
END = TOKENIZER("<|im_end|>\n", add_special_tokens=False)["input_ids"]
CONTROLS = set(TOKENIZER.added_tokens_decoder)
FREE, TIGHT = Renderer(TOKENIZER), Renderer(TOKENIZER, 96)


def controls(row: list[int]) -> list[int]:
    return [token for token in row if token in CONTROLS]


def bare(text: str) -> str:
    """Text without what may differ: a broken mark has a space more, the template strips newlines, Qwen composes."""
    return normalize("NFD", re.sub(r"\s", "", text))


[_plain] = FREE.encode([("a", "b")])
assert not isinstance(_plain, Unscorable)
PLAIN = controls(_plain)


def one_input(raw: bytes) -> None:
    data = atheris.FuzzedDataProvider(raw)
    cut = data.ConsumeIntInRange(0, 10)
    text = text_of(data, MAX_CHARS).encode("utf-8", "replace").decode()
    problem, code = text[: len(text) * cut // 10], text[len(text) * cut // 10 :]
    with contextlib.suppress(DataError):
        unwrapped(problem, "livecodebench")
    for renderer in (FREE, TIGHT):
        start = thread_time()
        rows = renderer.encode([(problem, code), (problem, "x = 1\n"), (problem, code)])
        seconds = thread_time() - start
        assert seconds < SECONDS, f"{seconds:.2f} s for {len(text)}: {text[:200]!r}"
        assert rows[0] == rows[2]
        for row, program in zip(rows, (code, "x = 1\n", code), strict=True):
            if isinstance(row, Unscorable):
                assert row is Unscorable.TOO_LONG
                assert renderer is TIGHT
                continue
            assert controls(row) == PLAIN
            assert row[-len(END) :] == END
            assert renderer is FREE or len(row) <= 96
            assert bare(program) in bare(TOKENIZER.decode(row))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()

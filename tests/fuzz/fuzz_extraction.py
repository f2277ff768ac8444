"""Coverage-guided fuzzing of `extract_code`; see tests/README.md. Not collected by pytest.

Any exception, any call over 200 ms of CPU and any broken promise ends the run and writes the input to a file. Coverage
doubles the time of a call: one that seems slow is timed again in a process without it, the least of three.
"""

import contextlib
import json
import subprocess
import sys
from time import thread_time

import atheris

with atheris.instrument_imports(include=["codescaler_plugin"]):
    from codescaler_plugin import Status, extract_code
    from codescaler_plugin.errors import DataError
    from codescaler_plugin.extraction import BLOCK_SELECTIONS, prompt_opening
    from codescaler_plugin.extraction.languages import LANGUAGES, grammar, language_of
    from codescaler_plugin.text.turns import response, user_turn

from tests.fuzz.pieces import text_of

SECONDS = 0.2
MAX_CHARS = 1_100_000
ALONE = """
import json, sys
from time import thread_time
from codescaler_plugin import extract_code
text, settings = json.load(sys.stdin)
extract_code("", **settings), extract_code("```x```", **settings)
seconds = []
for _ in range(3):
    start = thread_time()
    extract_code(text, **settings)
    seconds.append(thread_time() - start)
print(min(seconds))
"""


def seconds_alone(text: str, **settings: str | bool) -> float:
    done = subprocess.run(
        [sys.executable, "-c", ALONE], input=json.dumps([text, settings]), capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def one_input(raw: bytes) -> None:
    data = atheris.FuzzedDataProvider(raw)
    policy = data.PickValueInList(list(BLOCK_SELECTIONS))
    language = data.PickValueInList(["python", "python", "python", "any", *LANGUAGES])
    prefilled = data.PickValueInList([{}, {}, {"thinking_prefilled": True}, {"fence_prefilled": True}])
    text = text_of(data, MAX_CHARS)
    start = thread_time()
    extraction = extract_code(text, language=language, extraction=policy, **prefilled)
    seconds = thread_time() - start
    if seconds > SECONDS:
        seconds = seconds_alone(text, language=language, extraction=policy, **prefilled)
        print(f"slow: {seconds:.3f} s alone for {language}, {policy}, {len(text)} characters")  # noqa: T201
    assert seconds < SECONDS, f"{seconds:.2f} s for {language}, {policy}, {len(text)}: {text[:200]!r}"
    assert bool(extraction.code) == (extraction.status is Status.OK)
    assert extraction.explanation.endswith(".")
    assert extract_code(text, language=language, extraction=policy, **prefilled).code == extraction.code
    start = thread_time()
    with contextlib.suppress(DataError):
        assert user_turn(text) in text
    assert response(text, "") in text
    assert text.endswith(prompt_opening(text))
    seconds = thread_time() - start
    assert seconds < 2 * SECONDS, f"{seconds:.2f} s for a prompt of {len(text)}: {text[:200]!r}"


if __name__ == "__main__":
    for language in map(language_of, LANGUAGES[1:]):
        for code in ("", "<?php </a>"):
            for function in language.functions(code):
                grammar(language.grammar, function)  # loading is no call
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()

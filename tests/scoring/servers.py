"""Doubles of a codescaler server and of vLLM, and the items that tests send them."""

from pathlib import Path
from typing import Any

from tests.doubles import Answer

ITEMS = [("p", "x = 1\n"), ("q", "y = 22\n"), ("p", "z = 333\n"), ("p", "x = 1\n")]


def scores(*values: Any) -> dict[str, Any]:
    """What a codescaler server answers; a text stands for a failure of that kind."""
    return {
        "scores": [None if isinstance(value, str) else value for value in values],
        "judgements": [
            {
                "reward": None if isinstance(value, str) else value,
                "score": None if isinstance(value, str) else value,
                "status": None if isinstance(value, str) else "ok",
                "code": "",
                "failure": {"kind": value, "reason": "so"} if isinstance(value, str) else None,
                "explanation": "So.",
            }
            for value in values
        ],
    }


def codescaler(path: str, body: dict[str, Any]) -> tuple[int, Any]:
    return 200, scores(*(float(len(item["code"])) for item in body["items"]))


def vllm_of(folder: Path, *, name: str = "rm", limit: int = 4096) -> Answer:
    """Scores by the number of tokens, as vLLM answers."""

    def answer(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"data": [{"id": name, "root": str(folder), "max_model_len": limit}]}
        sign = 1 if body["use_activation"] is False else -1
        rows = [
            {"index": index, "probs": [sign * float(len(ids))], "num_classes": 1}
            for index, ids in enumerate(body["input"])
        ]
        return 200, {"data": rows[::-1]}

    return answer


def first_then(*answers: tuple[int, Any], then: Answer, path: str = "") -> Answer:
    """The answers in turn to requests of a path, then those of another function."""
    queue = list(answers)

    def answer(asked: str, body: dict[str, Any]) -> tuple[int, Any]:
        return queue.pop(0) if queue and asked.startswith(path) else then(asked, body)

    return answer

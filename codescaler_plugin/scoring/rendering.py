"""(problem, code) -> the token ids of a reward model, the same in training, scoring, serving and evaluation."""

import re
from collections import defaultdict
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from os.path import commonprefix
from typing import Any

from codescaler_plugin.errors import ConfigError, DataError

# The prompt of LiveCodeBench (`lcb_runner/prompts/code_generation.py`), which recipes copy (paper §5).
WRAPPERS = {
    "livecodebench": r"(?s)\A(?:.*?### Question:\n|You are an expert Python programmer\.[^\n]*\n\n)?+"
    r"(?P<problem>(?>.+?(?=(?<!\s)\s*+### Format:)))\s*+### Format:(?>.*?### Answer:)"
}
_MARK = re.compile(r"<[|｜].*[|｜]>")  # such as Qwen's fill-in-the-middle tokens, which are not flagged as special
_ATTEMPTS = 4


class Unscorable(StrEnum):
    """Why a reward model cannot read a program."""

    TOO_LONG = "too_long"
    CONTROL_TOKEN = "control_token"  # noqa: S105 - no password


class Renderer:
    r"""Renders (problem, code) pairs through the chat template of one tokenizer.

    The template gets two turns, like the training data of the released models: the problem, then the code without a
    fence. If neither holds control text, the ids equal those that TRL's RewardTrainer computes for a conversational
    pair. The tokenizer is fast and has a chat template. `limit` counts the tokens of the longest sequence.
    """

    def __init__(self, tokenizer: Any, limit: int | None = None) -> None:
        self.tokenizer, self.limit = tokenizer, limit
        template = str(tokenizer.chat_template)
        added = tokenizer.added_tokens_decoder.items()
        controls = {
            token.content: index
            for index, token in added
            if token.special or token.content in template or _MARK.fullmatch(token.content)
        }
        self._control_ids = frozenset(controls.values())
        texts = sorted({*controls, "<think>", "</think>"} - {""}, key=len, reverse=True)
        self._control_text = re.compile("|".join(map(re.escape, texts)))
        # A text may be tokenised in two parts before one of these: its ids do not depend on the text before it.
        self._splits = [
            token.content
            for _, token in added
            if token.special and not (token.lstrip or token.rstrip or token.single_word or token.normalized)
        ]
        probe = [("a\n", "\nb"), ("a\n", " c")]
        whole = self._tokenized([self.render(*item) for item in probe])
        if self._rows(probe) != whole:
            self._splits = []
        self._template_controls = self._controls(whole[0])

    def render(self, problem: str, code: str) -> str:
        """Return both turns through the chat template, without a generation prompt.

        A space breaks up the text of a control token, `<think>` or `</think>` after its first character: a tokenizer
        would read it as the token, and a template may cut there. Half a surrogate pair, which no tokenizer reads,
        becomes a question mark.
        """
        turns = [{"role": "user", "content": self._neutral(problem)}]
        turns += [{"role": "assistant", "content": self._neutral(code)}]
        text: str = self.tokenizer.apply_chat_template(turns, tokenize=False)
        return text

    def encode(self, items: Sequence[tuple[str, str]]) -> list[list[int] | Unscorable]:
        """Return the token ids of n (problem, code) pairs, in order, or the reason why a pair cannot be scored.

        Each row has at most `limit` tokens and ends as the template ends. A longer pair loses the middle of its
        problem, replaced by a line that says so. All programs for a problem in one call get the same cut. Its size is
        chosen for the longest code that leaves the problem at least a quarter of the limit, or its full length.

        The reason is `too_long` for code longer than that, and `control_token` if a control token remains that the
        template did not put there.
        """
        rows = self._rows(items)
        encoded: list[list[int] | Unscorable] = list(rows)
        if self.limit is not None:
            too_long: dict[str, list[int]] = {}
            for problem in dict.fromkeys(items[index][0] for index, row in enumerate(rows) if len(row) > self.limit):
                too_long[problem] = [index for index, item in enumerate(items) if item[0] == problem]
            for problem, indices in too_long.items():
                group = [items[index][1] for index in indices], [rows[index] for index in indices]
                trimmed = self._trimmed(problem, *group, self.limit)
                for index, row in zip(indices, trimmed, strict=True):
                    encoded[index] = row
        return [
            Unscorable.CONTROL_TOKEN
            if not isinstance(row, Unscorable) and self._controls(row) != self._template_controls
            else row
            for row in encoded
        ]

    def _trimmed(
        self, problem: str, codes: list[str], rows: list[list[int]], limit: int
    ) -> list[list[int] | Unscorable]:
        problem = self._neutral(problem)
        offsets = self.tokenizer(problem, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        room = [limit - (len(row) - len(offsets)) for row in rows]
        least = min(len(offsets), limit // 4)
        fitting = [index for index, tokens in enumerate(room) if tokens >= least]
        encoded: list[list[int] | Unscorable] = [Unscorable.TOO_LONG] * len(codes)
        keep = min((room[index] for index in fitting), default=0)
        for _ in range(_ATTEMPTS):
            shorter = _without_middle(problem, offsets, keep)
            cut = self._tokenized([self.render(shorter, codes[index]) for index in fitting])
            excess = max(map(len, cut), default=0) - limit
            if excess <= 0:  # else the line that marks the cut, or the tokens around it, took the room
                for index, row in zip(fitting, cut, strict=True):
                    encoded[index] = row
                break
            keep -= excess
        return encoded

    def _neutral(self, text: str) -> str:
        text = text.encode("utf-8", "replace").decode()
        while self._control_text.search(text):  # breaking up one token may complete another
            text = self._control_text.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        return text

    def _rows(self, items: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Token ids of whole texts. The common head of the texts of a problem, up to a split, is tokenised once."""
        texts = [self.render(problem, code) for problem, code in items]
        groups: dict[str, list[int]] = defaultdict(list)
        for index, (problem, _) in enumerate(items):
            groups[problem].append(index)
        heads: list[str] = []
        cuts = [(0, 0)] * len(items)  # (head, its length in characters)
        for indices in groups.values():
            same = [texts[index] for index in indices]
            common = commonprefix(same) if len(same) > 1 else ""  # noqa: RUF071 - of characters
            cut = max((common.rfind(split) for split in self._splits), default=0)
            if cut > 0:
                for index in indices:
                    cuts[index] = (len(heads), cut)
                heads.append(common[:cut])
        tokenized = self._tokenized(heads + [text[cut:] for text, (_, cut) in zip(texts, cuts, strict=True)])
        tails = tokenized[len(heads) :]
        return [tokenized[head] + tail if cut else tail for (head, cut), tail in zip(cuts, tails, strict=True)]

    def _tokenized(self, texts: list[str]) -> list[list[int]]:
        rows: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        return rows

    def _controls(self, row: list[int]) -> list[int]:
        return [token for token in row if token in self._control_ids]


def _without_middle(problem: str, offsets: list[tuple[int, int]], keep: int) -> str:
    """The beginning and the end of a problem in equal parts, about `keep` tokens together."""
    if keep >= len(offsets):
        return problem
    head, tail = (keep + 1) // 2, keep // 2
    start = offsets[head - 1][1] if head > 0 else 0
    end = offsets[len(offsets) - tail][0] if tail > 0 else len(problem)
    return f"{problem[:start]}\n[... {end - start} characters of the problem are left out here ...]\n{problem[end:]}"


@cache
def wrapper_pattern(wrapper: str) -> re.Pattern[str]:
    """Return the pattern of a `problem_wrapper`: that of a name in `WRAPPERS`, or one with a group `problem`."""
    try:
        pattern = re.compile(WRAPPERS.get(wrapper, wrapper))
    except re.error as error:
        raise ConfigError(f"problem_wrapper {wrapper!r} is no regular expression: {error}") from None
    if "problem" not in pattern.groupindex:
        raise ConfigError(
            f"problem_wrapper is {wrapper!r}: expected {' or '.join(WRAPPERS)}, or a regular expression with a group "
            "(?P<problem>...)"
        )
    return pattern


def unwrapped(problem: str, wrapper: str, offender: str = "problem") -> str:
    """Return a problem without the instructions around it; a `DataError` on `offender` if it does not fit."""
    match = wrapper_pattern(wrapper).search(problem)
    if match is None or not match["problem"]:
        raise DataError(f"{offender} does not fit problem_wrapper {wrapper!r}: it begins {problem[:60]!r}")
    return match["problem"]

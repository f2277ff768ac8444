"""Shallow baselines: how well length, style and likelihood alone predict which program of a pair is right.

A reward model can learn any cue that predicts the label. If the longer program is right in 61% of pairs (as in
LLM-written MBPP completions), a model may learn length. No baseline here knows what a program does, and each is
measured on problems that it was not fitted on.
"""

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any
from zlib import crc32

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.extras import require
from codescaler_plugin.intervals import Accuracy, accuracy, win
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.text.lines import lines_of

_MAX_LENGTH = 2048  # tokens of problem and code together
_NAME = re.compile(r"[^\W\d]\w*")


def _indents(code: str) -> list[int]:
    return [len(line) - len(line.lstrip()) for line in lines_of(code) if line[:1].isspace() and line.strip()]


def _share(code: str, test: Callable[[str], bool]) -> float:
    lines = [line.strip() for line in lines_of(code)]
    return sum(map(test, lines)) / max(1, len(lines))


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0.0


FEATURES: dict[str, Callable[[str], float]] = {
    "characters": lambda code: float(len(code)),
    "lines": lambda code: float(len(lines_of(code))),
    "characters per line": lambda code: _mean([len(line) for line in lines_of(code)]),
    "comment lines": lambda code: _share(code, lambda line: line.startswith("#")),
    "docstrings": lambda code: float(code.count('"""') + code.count("'''")),
    "empty lines": lambda code: _share(code, lambda line: not line),
    "indentation": lambda code: _mean(_indents(code)),
    "depth": lambda code: float(max(_indents(code), default=0)),
    "length of names": lambda code: _mean([len(name) for name in _NAME.findall(code)]),
    "type hints": lambda code: float(code.count("->")),
    "signs per character": lambda code: (
        sum(not (sign.isalnum() or sign.isspace()) for sign in code) / max(1, len(code))
    ),
}


def shallow_accuracies(pairs: Sequence[PreferencePair]) -> dict[str, Accuracy]:
    """Accuracy of each shallow feature, of a logistic regression on all (`all`), and of one per kind (`all: <kind>`).

    A hash of its text puts each problem into one of two halves. The sign of a feature (more or less of it is right) is
    chosen on one half and measured on the other, and the reverse. The regression is fitted in the same way, with a
    ridge penalty and without an intercept, because the two sides of a pair are exchangeable. A feature that predicts
    nothing has an accuracy near 0.5, above or below it.
    """
    import numpy as np

    if not pairs:
        return {}
    gaps, half = _measured(pairs)
    signs = np.sign(gaps)
    wins = np.full(gaps.shape, 0.5)
    for test in (half, ~half):
        if test.any() and not test.all():
            wins[test] = (signs[test] * np.where(signs[~test].mean(axis=0) >= 0, 1.0, -1.0) + 1) / 2
    accuracies = {name: accuracy(wins[:, index].tolist()) for index, name in enumerate(FEATURES)}
    accuracies["all"] = accuracy(_cross_fitted(gaps, half))
    kinds = np.array([pair.kind for pair in pairs])
    for kind in dict.fromkeys(pair.kind for pair in pairs):
        accuracies[f"all: {kind}"] = accuracy(_cross_fitted(gaps[kinds == kind], half[kinds == kind]))
    return accuracies


def shallow_wins(pairs: Sequence[PreferencePair]) -> list[float]:
    """Win of the regression on all features for each pair: 1 if it ranks the right program first, 0 if not, 0.5: tie.

    It is fitted on the other half of the problems; see `shallow_accuracies`.
    """
    return _cross_fitted(*_measured(pairs)) if pairs else []


def _measured(pairs: Sequence[PreferencePair]) -> tuple[Any, Any]:
    """Gaps of the features [pairs, features], right minus wrong, and a mask [pairs] of one half."""
    import numpy as np

    sides = [
        np.array([[feature(code) for feature in FEATURES.values()] for code in codes])
        for codes in ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
    ]
    return sides[0] - sides[1], np.array(
        [crc32(pair.problem.encode("utf-8", "surrogatepass")) % 2 == 0 for pair in pairs]
    )


def _cross_fitted(gaps: Any, half: Any) -> list[float]:
    """Wins on each half of a regression fitted on the other half; ties where the other half is empty."""
    import numpy as np

    wins = np.full(len(gaps), 0.5)
    for test in (half, ~half):
        if test.any() and not test.all():
            scale = np.sqrt((gaps[~test] ** 2).mean(axis=0))
            scale[scale == 0] = 1.0
            wins[test] = (np.sign((gaps[test] / scale) @ _logistic(gaps[~test] / scale)) + 1) / 2
    listed: list[float] = wins.tolist()
    return listed


def _logistic(gaps: Any) -> Any:
    """Weights of a Bradley-Terry regression: P(first is right) = 1 / (1 + exp(-gaps @ weights))."""
    import numpy as np

    require("a baseline of all shallow features", "report", "sklearn")
    from sklearn.linear_model import LogisticRegression

    # Each pair stands in both orders, because the solver needs two labels: half the weight each is a ridge of 1.
    regression = LogisticRegression(C=0.5, fit_intercept=False, solver="newton-cholesky", tol=1e-8)
    return regression.fit(np.concatenate([gaps, -gaps]), np.repeat([1, 0], len(gaps))).coef_[0]


def log_probability_accuracy(pairs: Sequence[PreferencePair], model: str, *, limit: int = 256) -> Accuracy:
    """Accuracy of `log_probability_wins` on at most `limit` random pairs. Each takes two forward passes."""
    drawn = Random(0).sample(list(pairs), min(limit, len(pairs)))
    return accuracy([share for share in log_probability_wins(drawn, model) if share is not None])


def check_causal_model(model: str) -> None:
    """Check that a causal model can be loaded, without its weights."""
    from transformers import AutoConfig, AutoTokenizer

    kinds = pretrained(AutoConfig, model, _named(model)).architectures or []
    pretrained(AutoTokenizer, model, _named(model))
    if kinds and not any(kind.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for kind in kinds):
        raise ConfigError(f"no causal model can be loaded from {model!r}: it is {', '.join(kinds)}")


def _named(model: str) -> str:
    return f"causal model {model!r}"


def log_probability_wins(pairs: Sequence[PreferencePair], model: str) -> list[float | None]:
    """Win of a causal model for each pair: 1 if the right program is more likely per token, 0 if not, 0.5: tie.

    None stands for a pair with more than 2048 tokens of problem and code on a side. The model's chat template is used
    if it has one.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = pretrained(AutoTokenizer, model, _named(model))
    policy, report = pretrained(
        AutoModelForCausalLM, model, _named(model), dtype=torch.float32, output_loading_info=True
    )
    if report["missing_keys"]:
        raise ConfigError(f"{_named(model)} cannot be loaded: it lacks {', '.join(sorted(report['missing_keys']))}")
    policy.eval()
    wins: list[float | None] = []
    for pair in pairs:
        prompt = pair.problem + "\n"
        if tokenizer.chat_template:
            turns = [{"role": "user", "content": pair.problem}]
            prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        codes = [tokenizer(code, add_special_tokens=False)["input_ids"] for code in (pair.chosen, pair.rejected)]
        if not before or len(before) + max(map(len, codes)) > _MAX_LENGTH:
            wins.append(None)
            continue
        means = []
        for code in codes:
            ids = torch.tensor([before + code])
            with torch.inference_mode():
                logits = policy(input_ids=ids).logits[0, len(before) - 1 : -1].float()
            means.append(float(logits.log_softmax(-1).gather(1, ids[0, len(before) :, None]).mean()))
        wins.append(win(*means))
    return wins

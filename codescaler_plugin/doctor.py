"""Checks a reward model for silent faults: in its head, tokens, limits, order of scores and speed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import Any, Literal

from codescaler_plugin.builtin import BUILTIN, REAL_MODEL, reward_model
from codescaler_plugin.errors import CodeScalerError
from codescaler_plugin.scoring import Scorer, load_scorer
from codescaler_plugin.scoring.forward import reason_not_to_share
from codescaler_plugin.scoring.loading import device_of, load_classifier, text_config
from codescaler_plugin.scoring.rendering import Renderer
from codescaler_plugin.scoring.transformers_scorer import TransformersScorer

State = Literal["ok", "warning", "failed"]

EXAMPLE = "Given a list of integers, which may be negative, count the contiguous non-empty sublists with sum k."
RIGHT = """\
def count_sublists(numbers, k):
    seen = {0: 1}
    total = count = 0
    for number in numbers:
        total += number
        count += seen.get(total - k, 0)
        seen[total] = seen.get(total, 0) + 1
    return count
"""
WRONG = """\
def count_sublists(numbers, k):
    start = total = count = 0
    for end in range(len(numbers)):
        total += numbers[end]
        while total > k and start <= end:
            total -= numbers[start]
            start += 1
        if total == k:
            count += 1
    return count
"""

_LEAST_LENGTH = 2048
_SPEED_GROUP = 8
_NEXT_MODEL = "give another model, or model='builtin' for the small embedded one"


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str  # the part of the model that was checked
    state: State  # `warning`: use the reward with care; `failed`: do not use it
    finding: str  # the values that were seen
    advice: str = ""  # the next step; empty if ok


def examine(
    model: str,
    *,
    max_length: int | None = None,
    device: str | None = None,
    api_key: str | None = None,
    trust_remote_code: bool = False,
) -> Iterator[Check]:
    """Yield the checks of a model, one by one. Behind a server, only the order of scores and the speed are checked.

    The arguments are those of `load_scorer`. The example follows the authors' model card: prefix sums against a
    sliding window, which is wrong for negative numbers. Their 8B model scores the two 6.54 and -0.03. One example
    proves no quality; use `codescaler evaluate`.

    Example:
        >>> summary(list(examine("builtin")))
        'Fit to be a reward. How good it is: codescaler evaluate.'
    """
    if "://" in model:
        yield Check("weights", "warning", f"behind {model}", "run codescaler doctor where the weights are, too")
        scorer = load_scorer(model, max_length=max_length, api_key=api_key, trust_remote_code=trust_remote_code)
        yield from _order(scorer)
        yield from _speed(scorer)
        return
    try:
        target = device_of(device)
    except CodeScalerError as error:
        reason, _, advice = str(error).partition("; ")
        yield Check("device", "failed", reason, advice)
        return
    try:
        loaded, tokenizer = load_classifier(reward_model(model), device, trust_remote_code=trust_remote_code)
    except CodeScalerError as error:
        first, _, rest = str(error).partition("\n")
        yield Check("labels and head", "failed", first, rest or _NEXT_MODEL)
        return
    parameters = sum(weight.numel() for weight in loaded.parameters())
    yield Check("labels and head", "ok", f"{type(loaded).__name__}, {parameters / 1e6:,.1f}M parameters, one label")
    if model == BUILTIN:
        yield Check("purpose", "ok", f"the quickstart's small problems; for others take {REAL_MODEL} of the hub")
    yield _device(target)
    yield _head(loaded)
    yield _pad(loaded, tokenizer)
    yield from _template(tokenizer)
    yield _length(loaded, tokenizer, max_length)
    local = TransformersScorer(loaded, tokenizer=tokenizer, max_length=max_length, cache_size=0)
    yield from _order(local)
    yield _shared(loaded, local)
    yield from _speed(local)


def _device(device: Any) -> Check:
    import torch

    if device.type == "cpu" and torch.version.cuda is not None and not torch.cuda.is_available():
        advice = "torch is built for CUDA and finds no GPU: is the driver there, and CUDA_VISIBLE_DEVICES right?"
        return Check("device", "warning", str(device), advice)
    name = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return Check("device", "ok", f"{device}{name}")


def summary(checks: Sequence[Check]) -> str:
    """Return one sentence on whether the model can be a reward, with the names of the checks that decide it."""
    failed = [check.name for check in checks if check.state == "failed"]
    warned = [check.name for check in checks if check.state == "warning"]
    if failed == ["device"]:
        return "Not checked: the device cannot be used."
    if failed:
        return (
            f"Not fit to be a reward: {', '.join(failed)} failed. Follow the lines with `next`, then run this again."
        )
    if warned:
        return f"Usable as a reward, with care: see {', '.join(warned)}."
    return "Fit to be a reward. How good it is: codescaler evaluate."


def _head(model: Any) -> Check:
    heads = (module for name, module in model.named_modules() if name.split(".")[-1] in ("score", "classifier"))
    weights = [weight for head in islice(heads, 1) for weight in head.parameters()]
    if not weights:
        return Check("head", "warning", "not found by its usual names", "compare two scores with those of the trainer")
    kinds = {str(weight.dtype).removeprefix("torch.") for weight in weights}
    shape = " and ".join(str(tuple(weight.shape)) for weight in weights)
    largest = max(float(weight.detach().float().abs().max()) for weight in weights)
    if not largest > 0 or largest != largest or largest == float("inf"):
        advice = f"the head is not trained, or broken: train the model, or {_NEXT_MODEL}"
        return Check("head", "failed", f"{shape}, largest weight {largest}", advice)
    # Scores are computed in float32 at the head in any case, see `forward._head`.
    return Check("head", "ok", f"{shape}, {', '.join(sorted(kinds))} in memory; scores are computed in float32")


def _pad(model: Any, tokenizer: Any) -> Check:
    configured, pad = text_config(model).pad_token_id, tokenizer.pad_token_id
    finding = f"config {configured}, tokenizer {'none' if pad is None else f'{pad} ({tokenizer.pad_token})'}"
    advice = ""
    if configured is None or configured != pad:
        advice = (
            "this package pools by known lengths and does not mind; TRL, OpenRLHF and vLLM do: set both to one token"
        )
    elif pad == tokenizer.eos_token_id:
        finding += ", the same as the end of sequence"
        advice = "hosts that look for the last token that is no pad may take one too early; this package does not look"
    return Check("pad token", "warning" if advice else "ok", finding, advice)


def _template(tokenizer: Any) -> Iterator[Check]:
    renderer = Renderer(tokenizer)
    text = renderer.render(EXAMPLE, RIGHT)
    row = renderer.encode([(EXAMPLE, RIGHT)])[0]
    if not isinstance(row, list) or not row:
        yield Check("chat template", "failed", f"the example cannot be rendered: {row}", "mend the chat template")
        return
    if EXAMPLE in text and RIGHT.strip() in text:
        yield Check("chat template", "ok", "problem and code are in the text whole")
    else:
        advice = "mend the chat template: a user and an assistant turn must come out unchanged"
        yield Check("chat template", "failed", "problem or code is not in the text as given", advice)
    [last] = tokenizer.convert_ids_to_tokens(row[-1:])
    finding = f"the score is read at {last!r}; the text ends in {tokenizer.decode(row[-2:])!r}"
    if row[-1] != tokenizer(RIGHT.strip(), add_special_tokens=False)["input_ids"][-1]:
        yield Check("template end", "ok", finding)
    else:
        advice = "the template puts no token behind the code: the score is read at the code's last token"
        yield Check("template end", "warning", finding, advice)
    start = tokenizer.bos_token_id  # may open every turn, as SmolLM2's does; twice in a row is a mistake
    if start is not None and row[:2] == [start, start]:
        yield Check("template start", "failed", "two start tokens", "the template must give one at most")


def _length(model: Any, tokenizer: Any, max_length: int | None) -> Check:
    positions = getattr(text_config(model), "max_position_embeddings", None)
    finding = f"model {positions or 'unknown'}"
    if tokenizer.model_max_length and tokenizer.model_max_length < 10**9:
        finding += f", tokenizer {tokenizer.model_max_length}"
    used = max_length or positions
    finding += f"; used: {used or 'no limit'}"
    if max_length is not None and positions is not None and max_length > positions:
        return Check("max length", "failed", finding, f"the model knows {positions} positions: ask for no more")
    if used is None:
        return Check("max length", "warning", finding, "give max_length: the tokens that it was trained with")
    if used < _LEAST_LENGTH:
        advice = "longer programs lose the middle of their problem, or get no score"
        return Check("max length", "warning", finding, advice)
    return Check("max length", "ok", finding)


def _order(scorer: Scorer) -> Iterator[Check]:
    try:
        right, wrong = scorer.score([(EXAMPLE, RIGHT), (EXAMPLE, WRONG)])
    except CodeScalerError as error:
        yield Check("example", "failed", str(error), "mend this first")
        return
    if right is None or wrong is None:
        yield Check("example", "failed", "no score", "raise max_length, or look for numbers that are not finite")
        return
    finding = f"right {right:.4f}, wrong {wrong:.4f}"
    if right > wrong:
        yield Check("example", "ok", finding)
    elif right == wrong:
        yield Check("example", "failed", finding, "equal scores: is the head trained, and the precision float32?")
    else:
        yield Check("example", "failed", finding, "the wrong one is ahead: measure with codescaler evaluate pairs")


def _shared(model: Any, scorer: TransformersScorer) -> Check:
    reason = reason_not_to_share(model)
    if reason is not None:
        return Check("shared prefixes", "warning", f"no: {reason}", "none: batches are padded, and slower")
    if scorer.shares_prefixes is None:
        return Check("shared prefixes", "warning", "not checked, since nothing was scored", "mend the above first")
    if not scorer.shares_prefixes:
        return Check("shared prefixes", "failed", "they fail, or scores differ: see the warning", "report the model")
    return Check("shared prefixes", "ok", f"equal to single sequences ({model.config.model_type})")


def _speed(scorer: Scorer) -> Iterator[Check]:
    """The rate of the second of two runs, with programs that no cache knows, for one problem."""
    try:
        for repeat in range(2):
            items = [(EXAMPLE, f"{RIGHT}\n# {repeat} {number}\n") for number in range(_SPEED_GROUP)]
            started = perf_counter()
            scorer.score(items)
            seconds = perf_counter() - started
    except CodeScalerError as error:
        yield Check("speed", "failed", str(error), "mend this first")
        return
    yield Check("speed", "ok", f"{_SPEED_GROUP / seconds:,.1f} short programs a second; in depth: codescaler bench")

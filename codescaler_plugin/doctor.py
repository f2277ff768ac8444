"""Is this model fit to be a reward? A checkup of what goes wrong in silence: head, tokens, limits, order, speed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    """One finding.

    Attributes:
        name: what was looked at.
        state: `ok`; `warning`: usable with care; `failed`: not to be trusted as a reward.
        found: what came.
        advice: the next step; empty if ok.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def examine(
    model: str,
    *,
    max_length: int | None = None,
    device: str | None = None,
    api_key: str | None = None,
    trust_remote_code: bool = False,
) -> Iterator[Check]:
    """Checks, as they are made. What a server keeps to itself is not looked at: there, order and speed only.

    The example is that of the authors' model card in own words: prefix sums against a sliding window, which is wrong
    for negative numbers. Their 8B model gives the two 6.54 and -0.03. One example proves no quality: use
    `codescaler evaluate` for that.

    Args:
        model: as for `load_scorer`.
        max_length: tokens per sample; None: the model's own limit.
        device: torch device; None: that of this process.
        api_key: of a server.
        trust_remote_code: see `load_scorer`.
    """
    if "://" in model:
        yield Check("weights", "warning", f"behind {model}", "run codescaler doctor where the weights are, too")
        scorer = load_scorer(model, max_length=max_length, api_key=api_key, trust_remote_code=trust_remote_code)
        yield from _order(scorer)
        yield from _speed(scorer)
        return
    try:
        place = device_of(device)
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
    yield _device(place)
    yield _head(loaded)
    yield _pad(loaded, tokenizer)
    yield from _template(tokenizer)
    yield _length(loaded, tokenizer, max_length)
    local = TransformersScorer(loaded, tokenizer=tokenizer, max_length=max_length, cache_size=0)
    yield from _order(local)
    yield _shared(loaded, local)
    yield from _speed(local)


def _device(place: Any) -> Check:
    import torch

    if place.type == "cuda":
        return Check("device", "ok", f"{place}, {torch.cuda.get_device_name(place)}")
    if place.type == "cpu" and torch.version.cuda is not None and not torch.cuda.is_available():
        advice = "torch is built for CUDA and finds no GPU: is the driver there, and CUDA_VISIBLE_DEVICES right?"
        return Check("device", "warning", str(place), advice)
    return Check("device", "ok", str(place))


def verdict(checks: Sequence[Check]) -> str:
    """One sentence over all checks: what the model may be used for, and which of them say so."""
    failed = [check.name for check in checks if check.state == "failed"]
    warned = [check.name for check in checks if check.state == "warning"]
    if failed == ["device"]:
        return "Not checked: the device cannot be used."
    if failed:
        return (
            f"Not fit to be a reward: {', '.join(failed)} failed. Do what stands behind `next`, then run this again."
        )
    if warned:
        return f"Usable as a reward, with care: see {', '.join(warned)}."
    return "Fit to be a reward. How good it is: codescaler evaluate."


def _head(model: Any) -> Check:
    head = next(
        (module for name, module in model.named_modules() if name.split(".")[-1] in ("score", "classifier")), None
    )
    weights = [] if head is None else list(head.parameters())
    if not weights:
        return Check("head", "warning", "not found by its usual names", "compare two scores with those of the trainer")
    kinds = {str(weight.dtype).removeprefix("torch.") for weight in weights}
    shape = " and ".join(str(tuple(weight.shape)) for weight in weights)
    largest = max(float(weight.detach().float().abs().max()) for weight in weights)
    if not largest > 0 or largest != largest or largest == float("inf"):
        advice = f"the head is not trained, or broken: train the model, or {_NEXT_MODEL}"
        return Check("head", "failed", f"{shape}, largest weight {largest}", advice)
    # Scores are computed in float32 at the head whatever it is stored in, see `forward._head`.
    return Check("head", "ok", f"{shape}, {', '.join(sorted(kinds))} in memory; scores are computed in float32")


def _pad(model: Any, tokenizer: Any) -> Check:
    found = text_config(model).pad_token_id
    theirs = tokenizer.pad_token_id
    named = f"{theirs} ({tokenizer.pad_token})" if theirs is not None else "none"
    said = f"config {found}, tokenizer {named}"
    advice = ""
    if found is None or found != theirs:
        advice = (
            "this package pools by known lengths and does not mind; TRL, OpenRLHF and vLLM do: set both to one token"
        )
    elif theirs == tokenizer.eos_token_id:
        said += ", the same as the end of sequence"
        advice = "hosts that look for the last token that is no pad may take one too early; this package does not look"
    return Check("pad token", "warning" if advice else "ok", said, advice)


def _template(tokenizer: Any) -> Iterator[Check]:
    renderer = Renderer(tokenizer)
    text = renderer.render(EXAMPLE, RIGHT)
    row = renderer.encode([(EXAMPLE, RIGHT)])[0]
    if not isinstance(row, list) or not row:
        yield Check("chat template", "failed", f"the example cannot be rendered: {row}", "mend the chat template")
        return
    whole = EXAMPLE in text and RIGHT.strip() in text
    yield Check(
        "chat template",
        "ok" if whole else "failed",
        "problem and code are in the text whole" if whole else "problem or code is not in the text as given",
        "" if whole else "mend the chat template: a user and an assistant turn must come out unchanged",
    )
    last = tokenizer.convert_ids_to_tokens(row[-2:])
    tail = tokenizer.decode(row[-2:])
    code_end = tokenizer(RIGHT.strip(), add_special_tokens=False)["input_ids"][-1]
    ends = row[-1] != code_end
    yield Check(
        "template end",
        "ok" if ends else "warning",
        f"the score is read at {last[-1]!r}; the text ends in {tail!r}",
        "" if ends else "the template puts no token behind the code: the score is read at the code's last token",
    )
    start = tokenizer.bos_token_id  # may open every turn, as SmolLM2's does; twice in a row is a mistake
    if start is not None and row[:2] == [start, start]:
        yield Check("template start", "failed", "two start tokens", "the template must give one at most")


def _length(model: Any, tokenizer: Any, max_length: int | None) -> Check:
    own = getattr(text_config(model), "max_position_embeddings", None)
    said = f"model {own or 'unknown'}"
    theirs = tokenizer.model_max_length
    if theirs and theirs < 10**9:
        said += f", tokenizer {theirs}"
    used = max_length or own
    said += f"; used: {used or 'no limit'}"
    if max_length is not None and own is not None and max_length > own:
        return Check("max length", "failed", said, f"the model knows {own} positions: ask for no more")
    if used is None:
        return Check("max length", "warning", said, "give max_length: the tokens that it was trained with")
    if used < _LEAST_LENGTH:
        return Check("max length", "warning", said, "longer samples lose the middle of their problem, or get no score")
    return Check("max length", "ok", said)


def _order(scorer: Scorer) -> Iterator[Check]:
    try:
        right, wrong = scorer.score([(EXAMPLE, RIGHT), (EXAMPLE, WRONG)])
    except CodeScalerError as error:
        yield Check("example", "failed", str(error), "mend this first")
        return
    if right is None or wrong is None:
        yield Check("example", "failed", "no score", "raise max_length, or look for numbers that are not finite")
        return
    said = f"right {right:.4f}, wrong {wrong:.4f}"
    if right > wrong:
        yield Check("example", "ok", said)
    elif right == wrong:
        yield Check("example", "failed", said, "equal scores: is the head trained, and the precision float32?")
    else:
        yield Check("example", "failed", said, "the wrong one is ahead: measure with codescaler evaluate pairs")


def _shared(model: Any, scorer: Any) -> Check:
    reason = reason_not_to_share(model)
    if reason is not None:
        return Check("shared prefixes", "warning", f"no: {reason}", "none: batches are padded, and slower")
    engine = scorer._engine
    if engine is None or not engine.checked:
        return Check("shared prefixes", "warning", "not checked, since nothing was scored", "mend the above first")
    if not engine.tree:
        return Check("shared prefixes", "failed", "they fail, or scores differ: see the warning", "report the model")
    return Check("shared prefixes", "ok", f"equal to single samples ({model.config.model_type})")


def _speed(scorer: Scorer) -> Iterator[Check]:
    """Samples that no cache knows, a group on one problem; the second of two runs."""
    try:
        for repeat in range(2):
            items = [(EXAMPLE, f"{RIGHT}\n# {repeat} {number}\n") for number in range(_SPEED_GROUP)]
            started = perf_counter()
            scorer.score(items)
            seconds = perf_counter() - started
    except CodeScalerError as error:
        yield Check("speed", "failed", str(error), "mend this first")
        return
    yield Check("speed", "ok", f"{_SPEED_GROUP / seconds:,.1f} short samples a second; in depth: codescaler bench")

"""Prepares pairs for training: the token ids are those that the reward model is scored with."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from codescaler_plugin.data.pairs import TRAIN, pair_of, split_of
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extraction import extract_all
from codescaler_plugin.records import PreferencePair, Status
from codescaler_plugin.scoring.rendering import Renderer, Unscorable

logger = logging.getLogger(__name__)

NOT_TRAIN = "not train"  # every split but `train`
_SHOWN = 5  # bad rows named in an error


def prepare_preference_dataset(
    dataset: Iterable[Mapping[str, Any]],
    tokenizer: Any,
    *,
    max_length: int | None = 4096,
    language: str = "python",
    margin_scale: float = 0.0,
    name: str = "dataset",
    min_pairs: int = 2,
    split: str | None = TRAIN,
) -> Any:
    """Tokenize pairs for `CodeScalerRewardTrainer`, TRL's `RewardTrainer` or `trl reward`.

    The dataset has the columns `chosen_ids` and `rejected_ids` (from `Renderer.encode`), `margin` if `margin_scale` is
    set, `problem`, `chosen` and `rejected` (code without a fence), `kind`, and `length` (tokens of the longer side).
    The order is kept.

    A pair that is too long loses the middle of its problem, the same on both sides. A pair is left out, and counted in
    a warning, if its rejected side is not a program (scoring never sees one), if it is still too long, or if it holds
    control tokens.

    Args:
        dataset: rows in any of the columns that `read_pairs` reads.
        tokenizer: tokenizer of the reward model, with a chat template.
        max_length: largest number of tokens of a side. None: no limit.
        language: language of the code, or `any`.
        margin_scale: target margin of the loss per unit of a pair's `margin`, the gap of its pass rates. 0: no margin.
        name: name of the dataset, for messages.
        min_pairs: smallest number of pairs that must remain. 1 is enough for evaluation.
        split: split to take from rows with a column `split`; `NOT_TRAIN` takes every split but `train`. Rows without
            a split are of `train`. Other rows are left out and counted in a warning. None: all rows.

    Raises:
        ConfigError: the dataset streams, so it cannot be checked before training.
        DataError: no row of the split, fewer than `min_pairs` pairs, or rows that cannot be trained on: not a pair,
            empty code, equal sides, a chosen side that is not a program, no `margin` with `margin_scale` set. The
            message has the numbers of the rows.

    Example:
        >>> from codescaler_plugin.testing import tiny_tokenizer
        >>> rows = [{"problem": "Add.", "chosen": "x = 1", "rejected": "x = 2"}] * 2
        >>> dataset = prepare_preference_dataset(rows, tiny_tokenizer())
        >>> dataset.column_names[:2], len(dataset)
        (['chosen_ids', 'rejected_ids'], 2)
    """
    from datasets import Dataset, IterableDataset

    if isinstance(dataset, IterableDataset):
        raise ConfigError(f"{name} streams: give a dataset that can be read and checked before training")
    checked, dropped = _checked(dataset, language, margin_scale > 0, name, split)
    rows, lost = _tokenized(checked, Renderer(tokenizer, max_length), margin_scale)
    reasons = {
        "whose rejected side is no program": dropped,
        f"whose code is too long for {max_length} tokens": lost[Unscorable.TOO_LONG],
        "that hold control tokens": lost[Unscorable.CONTROL_TOKEN],
    }
    for reason, count in reasons.items():
        if count:
            logger.warning("%s: %d of %d pairs are left out, %s", name, count, len(checked) + dropped, reason)
    if len(rows) < min_pairs:
        raise DataError(
            f"{name} has {len(rows)} valid pairs of {len(checked) + dropped}: expected at least {min_pairs}"
        )
    return Dataset.from_list(rows)


def _tokenized(
    pairs: list[PreferencePair], renderer: Renderer, margin_scale: float
) -> tuple[list[dict[str, Any]], Counter[Unscorable]]:
    """The rows of the pairs that can be scored, and the other pairs by reason."""
    ids = iter(renderer.encode([(pair.problem, code) for pair in pairs for code in (pair.chosen, pair.rejected)]))
    rows: list[dict[str, Any]] = []
    lost: Counter[Unscorable] = Counter()
    for pair, chosen, rejected in zip(pairs, ids, ids, strict=True):
        if isinstance(chosen, Unscorable) or isinstance(rejected, Unscorable):
            lost.update({side for side in (chosen, rejected) if isinstance(side, Unscorable)})
            continue
        rows.append(
            {
                "chosen_ids": chosen,
                "rejected_ids": rejected,
                "problem": pair.problem,
                "chosen": pair.chosen,
                "rejected": pair.rejected,
                "kind": pair.kind,
                "length": max(len(chosen), len(rejected)),
                **({"margin": margin_scale * (pair.margin or 0.0)} if margin_scale > 0 else {}),
            }
        )
    return rows, lost


def is_of_split(row_split: Any, split: str | None) -> bool:
    """Whether a row's split (null: `train`) is `split`, which may also be `NOT_TRAIN` or None: any."""
    own = split_of({"split": row_split})
    return split is None or own == split or (split == NOT_TRAIN and own != TRAIN)


def _checked(
    dataset: Iterable[Mapping[str, Any]], language: str, margins: bool, name: str, split: str | None
) -> tuple[list[PreferencePair], int]:
    """The pairs with bare code, and the number of pairs left out for their rejected side."""
    pairs, errors = [], []
    kept: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for index, row in enumerate(dataset):
        try:
            is_kept = is_of_split(row.get("split"), split)
            (kept if is_kept else left)[split_of(row)] += 1
            if is_kept:
                pairs.append((index, pair_of(row)))
        except DataError as error:
            errors.append((index, str(error)))
    if left:
        others = ", ".join(f"{count} of the split {other!r}" for other, count in left.items())
        if not kept:
            raise DataError(f"{name} has no row of the split {split!r}, but {others}: give its rows, or another split")
        use = "evaluated on" if split == NOT_TRAIN else "trained on" if split == TRAIN else "taken"
        logger.warning(
            "%s: %d of %d pairs are not %s: %s", name, left.total(), left.total() + kept.total(), use, others
        )
    total = len(pairs) + len(errors)
    texts = [text for _, pair in pairs for text in (pair.chosen, pair.rejected)]
    extractions = iter(extract_all(texts, language=language, extraction="bare"))
    checked, dropped = [], 0
    for (index, pair), chosen, rejected in zip(pairs, extractions, extractions, strict=True):
        if chosen.status is not Status.OK:
            errors.append((index, f"the chosen side is no program ({chosen.status}): {chosen.explanation}"))
        elif chosen.code == rejected.code:
            errors.append((index, "the chosen and the rejected side are the same program"))
        elif margins and pair.margin is None:
            errors.append((index, "it has no margin, which margin_scale needs"))
        elif rejected.status is not Status.OK:
            dropped += 1
        else:
            checked.append(PreferencePair(pair.problem, chosen.code, rejected.code, pair.kind, margin=pair.margin))
    if errors:
        shown = "".join(f"\n  row {index}: {reason}" for index, reason in sorted(errors)[:_SHOWN])
        more = f"\n  and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        raise DataError(f"{len(errors)} of {total} rows of {name} cannot be trained on:{shown}{more}")
    return checked, dropped

"""Pairs -> the token ids that a reward model is trained on, equal to those it is scored with."""

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

NOT_TRAIN = "not train"
"""Stands for every split that is not trained on."""

_SHOWN = 5  # bad rows named in an error


def prepare_preference_dataset(
    dataset: Iterable[Mapping[str, Any]],
    tokenizer: Any,
    *,
    max_length: int | None = 4096,
    language: str = "python",
    margin_scale: float = 0.0,
    name: str = "dataset",
    least: int = 2,
    split: str | None = TRAIN,
) -> Any:
    """A dataset for `CodeScalerRewardTrainer`, TRL's stock `RewardTrainer` or `trl reward`.

    Columns: `chosen_ids`, `rejected_ids` (what `Renderer.encode` makes of problem and code), `margin` if it is asked
    for, `problem`, `chosen`, `rejected` (bare code), `kind`, `length` (of the longer side). Code is taken out of a
    fence if it stands in one. The order is kept.

    Over-long pairs lose the middle of their problem, on both sides alike. Left out, counted in a warning: a rejected
    side that is no program (scoring never sees one), and pairs that do not fit even so or hold control tokens.

    Args:
        dataset: rows in any of the columns that `preference.pairs` reads.
        tokenizer: of the reward model, with a chat template.
        max_length: tokens of the longest side; None: no limit.
        language: that the code must be in, or `any`.
        margin_scale: target margin of the loss per unit of the pairs' `margin`, the gap of their pass rates; 0: none.
        name: of the dataset, for messages.
        least: pairs that must remain; 1 is enough to evaluate on.
        split: of rows with a column `split`, those of this one; `NOT_TRAIN`: those of any but `train`. The others are
            left out, counted in a warning. Rows without the column, or with null in it, are of `train`. None: all.

    Raises:
        ConfigError: the dataset streams: it could not be checked before training.
        DataError: no row of the split; fewer than `least` pairs; or rows that are no pair, have empty code or equal
            sides, or whose chosen side is no program, or without `margin` where it is asked for. Their numbers are in
            the message.
    """
    from datasets import Dataset, IterableDataset

    if isinstance(dataset, IterableDataset):
        raise ConfigError(f"{name} streams: give a dataset that can be read and checked before training")
    checked, dropped = _checked(dataset, language, margin_scale > 0, name, split)
    renderer = Renderer(tokenizer, max_length)
    items = [(pair.problem, code) for pair in checked for code in (pair.chosen, pair.rejected)]
    ids = iter(renderer.encode(items))
    rows: list[dict[str, Any]] = []
    lost: Counter[Unscorable] = Counter()
    for pair, chosen, rejected in zip(checked, ids, ids, strict=True):
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
            }
        )
        if margin_scale > 0:
            rows[-1]["margin"] = margin_scale * (pair.margin or 0.0)
    reasons = {
        "whose rejected side is no program": dropped,
        f"whose code is too long for {max_length} tokens": lost[Unscorable.TOO_LONG],
        "that hold control tokens": lost[Unscorable.CONTROL_TOKEN],
    }
    for reason, count in reasons.items():
        if count:
            logger.warning("%s: %d of %d pairs are left out, %s", name, count, len(checked) + dropped, reason)
    if len(rows) < least:
        raise DataError(f"{name} has {len(rows)} valid pairs of {len(checked) + dropped}: expected at least {least}")
    return Dataset.from_list(rows)


def is_of_split(named: Any, split: str | None) -> bool:
    """Whether a row that names a split (null: `train`) is of a split, of `NOT_TRAIN`, or of any (None)."""
    own = split_of({"split": named})
    return split is None or own == split or (split == NOT_TRAIN and own != TRAIN)


def _checked(
    dataset: Iterable[Mapping[str, Any]], language: str, margins: bool, name: str, split: str | None
) -> tuple[list[PreferencePair], int]:
    """The pairs with bare code, and how many were left out for their rejected side."""
    pairs, errors = [], []
    kept: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for number, row in enumerate(dataset):
        try:
            is_wanted = is_of_split(row.get("split"), split)
            (kept if is_wanted else left)[split_of(row)] += 1
            if not is_wanted:
                continue
            pairs.append((number, pair_of(row)))
        except DataError as error:
            errors.append((number, str(error)))
    if left:
        others = ", ".join(f"{count} of the split {one!r}" for one, count in left.items())
        if not kept:
            raise DataError(f"{name} has no row of the split {split!r}, but {others}: give its rows, or another split")
        use = "evaluated on" if split == NOT_TRAIN else "trained on" if split == TRAIN else "taken"
        logger.warning(
            "%s: %d of %d pairs are not %s: %s", name, left.total(), left.total() + kept.total(), use, others
        )
    looked_at = len(pairs) + len(errors)
    texts = [text for _, pair in pairs for text in (pair.chosen, pair.rejected)]
    extractions = iter(extract_all(texts, language=language, extraction="bare", explain=True))
    checked, dropped = [], 0
    for (number, pair), chosen, rejected in zip(pairs, extractions, extractions, strict=True):
        if chosen.status is not Status.OK:
            errors.append((number, f"the chosen side is no program ({chosen.status}): {chosen.explanation}"))
        elif chosen.code == rejected.code:
            errors.append((number, "the chosen and the rejected side are the same program"))
        elif margins and pair.margin is None:
            errors.append((number, "it has no margin, which margin_scale needs"))
        elif rejected.status is not Status.OK:
            dropped += 1
        else:
            bare = PreferencePair(pair.problem, chosen.code, rejected.code, pair.kind, margin=pair.margin)
            checked.append(bare)
    if errors:
        shown = "".join(f"\n  row {number}: {reason}" for number, reason in sorted(errors)[:_SHOWN])
        more = f"\n  and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        raise DataError(f"{len(errors)} of {looked_at} rows of {name} cannot be trained on:{shown}{more}")
    return checked, dropped

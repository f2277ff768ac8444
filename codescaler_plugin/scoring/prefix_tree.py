"""Token ids -> rows of a plan, in which no common prefix is computed twice.

Programs for one problem share the problem and often their first lines. A row lays out a forest of radix trees in
depth-first order, `[shared prefix][rest of 1][rest of 2]...`, with the positions that each token has in its own
sequence. In the attention, a token sees its path from the root and nothing else (`attention.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

MIN_SHARED = 16
"""Shortest shared run of tokens that becomes a node: each node costs an attention call in every layer."""


@dataclass(frozen=True)
class Node:
    """Tokens [start, end) of a row; those of all its descendants are [end, subtree_end)."""

    start: int
    end: int
    subtree_end: int
    depth: int


@dataclass
class Row:
    """One forward pass of batch size 1."""

    tokens: list[int] = field(default_factory=list)  # ids, depth first
    positions: list[int] = field(default_factory=list)  # of each token in its own sequence, from 0
    nodes: list[Node] = field(default_factory=list)  # in the order of `start`
    lasts: list[tuple[int, int]] = field(default_factory=list)  # (item, index in `tokens` of the item's last token)


def plan_rows(items: Sequence[list[int]], *, max_tokens: int, min_shared: int = MIN_SHARED) -> list[Row]:
    """Return rows of at most `max_tokens` that hold every item once, as the tokens on its path from a root.

    Items are grouped by content, in any order and across problems. A group that does not fit is split over rows, which
    repeat its prefix. A longer item gets a longer row of its own.
    """
    order = sorted(range(len(items)), key=lambda index: items[index])
    arrays = [np.asarray(items[index]) for index in order]
    common = [0] + [_common_prefix(first, second) for first, second in pairwise(arrays)]
    rows: list[Row] = []
    start, size = 0, 0
    for index, array in enumerate(arrays):
        # Tokens that the item adds to the row. Up to min_shared - 1 common tokens may stay without a node.
        added = len(array) - (max(0, common[index] - min_shared + 1) if index > start else 0)
        if index > start and size + added > max_tokens:
            rows.append(_row(items, order, common, start, index, min_shared))
            start, size, added = index, 0, len(array)
        size += added
    if order:
        rows.append(_row(items, order, common, start, len(order), min_shared))
    return rows


def _common_prefix(first: np.ndarray, second: np.ndarray) -> int:
    length = min(len(first), len(second))
    different = np.flatnonzero(first[:length] != second[:length])
    return int(different[0]) if len(different) else length


def _row(
    items: Sequence[list[int]], order: list[int], common: list[int], start: int, end: int, min_shared: int
) -> Row:
    """The row of the sorted items [start, end); `common[i]` is the length of the prefix that i shares with i - 1."""
    row = Row()
    open_nodes: list[tuple[int, int, int]] = []  # (slot in row.nodes, first token, end of its own tokens)
    # Pending work, last first: sorted items [low, high) below a node that covers their first `depth` tokens, or the
    # closing of a node.
    pending: list[tuple[int, int, int] | None] = _groups(common, start, end, 0, min_shared)
    while pending:
        work = pending.pop()
        if work is None:
            slot, first, last = open_nodes.pop()
            row.nodes[slot] = Node(first, last, len(row.tokens), len(open_nodes))
            continue
        low, high, depth = work
        item = items[order[low]]
        shared = min(common[low + 1 : high], default=len(item))
        first = len(row.tokens)
        row.tokens.extend(item[depth:shared])
        row.positions.extend(range(depth, shared))
        open_nodes.append((len(row.nodes), first, len(row.tokens)))
        row.nodes.append(Node(first, first, first, 0))  # replaced when it closes
        pending.append(None)
        while low < high and len(items[order[low]]) == shared:  # sorted first: items that end in this node
            row.lasts.append((order[low], len(row.tokens) - 1))
            low += 1
        if low < high:
            pending.extend(_groups(common, low, high, shared, min_shared))
    return row


def _groups(common: list[int], start: int, end: int, depth: int, min_shared: int) -> list[tuple[int, int, int] | None]:
    """The sorted items [start, end) split where neighbours share too little beyond `depth`; in reverse order."""
    bounds = [start, *(index for index in range(start + 1, end) if common[index] < depth + min_shared), end]
    groups: list[tuple[int, int, int] | None] = [(low, high, depth) for low, high in pairwise(bounds)]
    return groups[::-1]

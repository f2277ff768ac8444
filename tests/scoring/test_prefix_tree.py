from hypothesis import given, settings
from hypothesis import strategies as st

from codescaler_plugin.scoring.prefix_tree import Row, plan_rows

ids = st.lists(st.integers(0, 2), min_size=1, max_size=40)  # few ids: long common prefixes, prefixes of each other
grouped = st.tuples(ids, st.lists(ids, min_size=1, max_size=4)).map(lambda pair: [pair[0] + tail for tail in pair[1]])
batches = st.lists(ids | grouped, max_size=8).map(
    lambda rows: [item for row in rows for item in (row if isinstance(row[0], list) else [row])]
)


def path(row: Row, last: int) -> list[int]:
    """The tokens that token `last` of a row can see, itself included, in order."""
    return [
        row.tokens[index]
        for node in row.nodes
        if node.start <= last < node.subtree_end
        for index in range(node.start, min(node.end, last + 1))
    ]


@settings(max_examples=100, deadline=None)
@given(batches, st.integers(1, 120), st.integers(1, 20))
def test_path_of_every_item_reproduces_its_ids_and_positions(
    items: list[list[int]], max_tokens: int, min_shared: int
) -> None:
    rows = plan_rows(items, max_tokens=max_tokens, min_shared=min_shared)
    found = {}
    for row in rows:
        assert len(row.tokens) == len(row.positions)
        for item, last in row.lasts:
            assert item not in found
            found[item] = path(row, last)
            assert row.positions[last] == len(items[item]) - 1
    assert [found[index] for index in range(len(items))] == items


@settings(max_examples=60, deadline=None)
@given(batches, st.integers(1, 120))
def test_row_is_longer_than_the_budget_only_for_one_item_alone(items: list[list[int]], max_tokens: int) -> None:
    for row in plan_rows(items, max_tokens=max_tokens):
        assert len(row.tokens) <= max_tokens or len({tuple(items[item]) for item, _ in row.lasts}) == 1


@settings(max_examples=60, deadline=None)
@given(batches)
def test_nodes_are_nested_and_hold_every_token_once(items: list[list[int]]) -> None:
    for row in plan_rows(items, max_tokens=10_000):
        own = [index for node in row.nodes for index in range(node.start, node.end)]
        assert sorted(own) == list(range(len(row.tokens)))
        for node in row.nodes:
            ancestors = [other for other in row.nodes if other.start < node.start < other.subtree_end]
            assert len(ancestors) == node.depth
            assert all(node.subtree_end <= other.subtree_end for other in ancestors)


@settings(max_examples=60, deadline=None)
@given(batches, st.randoms(use_true_random=False))
def test_order_of_the_items_changes_nothing(items: list[list[int]], rng) -> None:
    shuffled = items[:]
    rng.shuffle(shuffled)
    one, other = (sum(len(row.tokens) for row in plan_rows(list_, max_tokens=10_000)) for list_ in (items, shuffled))
    assert one == other


def test_prompt_of_a_group_is_planned_once() -> None:
    prompt = list(range(100))
    items = [[*prompt, 200 + number, *range(300, 320)] for number in range(8)]
    (row,) = plan_rows(items, max_tokens=10_000)
    assert len(row.tokens) == 100 + 8 * 21
    assert [(node.start, node.end) for node in row.nodes if node.depth == 0] == [(0, 100)]


def test_group_that_does_not_fit_repeats_only_its_prompt() -> None:
    prompt = list(range(100))
    items = [[*prompt, 200 + number, *range(300, 320)] for number in range(8)]
    rows = plan_rows(items, max_tokens=100 + 2 * 36)  # the plan allows for 15 tokens that get no node
    assert [len(row.tokens) for row in rows] == [100 + 2 * 21] * 4


def test_partial_groups_in_any_order_are_found_by_content() -> None:
    one, other = list(range(50)), list(range(500, 550))
    items = [[*one, 1], [*other, 2], [*one, 3], [9], [*other, 4]]
    assert sum(len(row.tokens) for row in plan_rows(items, max_tokens=10_000)) == 50 + 2 + 50 + 2 + 1


def test_equal_items_share_all_their_tokens() -> None:
    (row,) = plan_rows([list(range(20))] * 3, max_tokens=100)
    assert row.tokens == list(range(20))
    assert sorted(row.lasts) == [(0, 19), (1, 19), (2, 19)]


def test_no_items_give_no_rows() -> None:
    assert plan_rows([], max_tokens=10) == []

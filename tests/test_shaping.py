import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from codescaler_plugin import ConfigError, DataError, Status, shape_reward
from codescaler_plugin.shaping import SHAPINGS, Shaping

LARGEST = float(np.finfo(np.float32).max)
scores32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
groups_of_scores = st.lists(scores32, min_size=1, max_size=24)
invalid = [status for status in Status if status is not Status.OK]
settings = st.builds(
    Shaping,
    st.sampled_from(["softplus", "sigmoid", "group_center"]),
    st.floats(1e-3, 1e3),
    st.floats(-50, 50),
    st.sampled_from([0.0, 0.1, 10.0]),
) | st.builds(Shaping, st.just("rank"), floor=st.sampled_from([0.0, 0.1]))


def shaped(shape: Shaping, scores: list[float]) -> list[float]:
    rewards = shape.rewards(scores, [Status.OK] * len(scores), [0] * len(scores))
    assert None not in rewards
    return rewards


@given(st.floats(-80, 2.0**99, width=32))
@example(-37.0)
@example(710.0)
@example(0.0)
def test_softplus_is_log_of_one_plus_exp(score: float) -> None:
    assert shape_reward(score, Status.OK) == pytest.approx(float(np.logaddexp(0.0, score)), rel=1e-6, abs=0.0)


@given(settings, groups_of_scores)
@example(Shaping(), [-LARGEST, -37.0, LARGEST])
@example(Shaping("softplus", 1e-3), [LARGEST, LARGEST / 2])
@example(Shaping("group_center"), [LARGEST, -LARGEST])
def test_valid_code_is_worth_more_than_invalid_in_float32_and_rewards_are_finite(
    shape: Shaping, scores: list[float]
) -> None:
    for reward in shaped(shape, scores):
        assert 0 < np.float32(reward) < np.inf
        assert float(np.float32(reward)) == reward


@given(settings, groups_of_scores)
@example(Shaping(), [1e-30, 2e-30, 3e-30])
@example(Shaping(floor=1.0), [-60.0, -61.0, -62.0])
@example(Shaping(), [-200.0, -300.0])
@example(Shaping("sigmoid"), [40.0, 41.0, 42.0])
@example(Shaping("softplus", 1e-3), [LARGEST, LARGEST / 2])
@example(Shaping(), [-0.0, 0.0])
def test_a_higher_score_gives_a_higher_reward_and_an_equal_one_an_equal_reward(
    shape: Shaping, scores: list[float]
) -> None:
    rewards = shaped(shape, scores)
    for first, one in zip(scores, rewards, strict=True):
        for second, other in zip(scores, rewards, strict=True):
            assert (first < second) == (one < other)


@given(settings, groups_of_scores)
def test_order_of_a_group_does_not_matter(shape: Shaping, scores: list[float]) -> None:
    assert shaped(shape, scores[::-1]) == shaped(shape, scores)[::-1]


def test_the_papers_shape_loses_the_gap_to_invalid_code_and_floor_keeps_it() -> None:
    hard_group = [-12.0, -9.5, -7.0]
    assert max(shaped(Shaping(), hard_group)) < 1e-3
    assert min(shaped(Shaping(floor=0.5), hard_group)) > 0.5


def test_temperature_and_offset_move_the_score_before_it_is_shaped() -> None:
    assert shape_reward(7.0, Status.OK, temperature=2.0, offset=3.0) == shape_reward(2.0, Status.OK)


def test_group_center_takes_off_the_mean_of_the_groups_valid_scores() -> None:
    ok, bad = Status.OK, Status.NO_BLOCK
    rewards = Shaping("group_center").rewards([1.0, 3.0, None, 11.0, 13.0], [ok, ok, bad, ok, ok], "aaabb")
    assert rewards[:2] == rewards[3:]
    assert rewards[2] == 0.0
    assert rewards[0] == shape_reward(-1.0, ok)


def test_rank_is_the_average_place_in_the_group() -> None:
    assert shaped(Shaping("rank"), [5.0, -3.0, 5.0, 80.0]) == [0.625, 0.25, 0.625, 1.0]
    assert shaped(Shaping("rank"), [-40.0]) == [1.0]


def test_groups_do_not_touch_each_other() -> None:
    apart = Shaping("rank").rewards([1.0, 2.0, 3.0], [Status.OK] * 3, ["a", "b", "a"])
    assert apart == [0.5, 1.0, 1.0]


@pytest.mark.parametrize("kind", SHAPINGS)
@pytest.mark.parametrize("status", invalid, ids=str)
@pytest.mark.parametrize("score", [None, math.nan, math.inf, -3.0, 50.0], ids=str)
def test_invalid_code_is_worth_exactly_zero_whatever_the_score(score: float | None, status: Status, kind: str) -> None:
    [reward] = Shaping(kind).rewards([score], [status], [0])
    assert reward == 0.0
    assert math.copysign(1.0, reward) == 1.0


@pytest.mark.parametrize("kind", SHAPINGS)
@pytest.mark.parametrize("score", [None, math.nan, math.inf, -math.inf, 1e300], ids=str)
def test_usable_code_without_a_finite_score_has_no_reward(score: float | None, kind: str) -> None:
    assert Shaping(kind).rewards([score, 1.0], [Status.OK] * 2, [0, 0])[0] is None


@given(scores32)
def test_raw_is_the_score_itself(score: float) -> None:
    assert shape_reward(score, Status.OK, shaping="raw") == score


def test_an_empty_batch_has_no_rewards() -> None:
    assert Shaping().rewards([], [], []) == []


@pytest.mark.parametrize(
    ("arguments", "offender"),
    [
        ({"kind": "tanh"}, "tanh"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"floor": -0.1}, "floor"),
        ({"offset": math.inf}, "offset"),
        ({"offset": "1"}, "offset"),
        ({"kind": "raw", "floor": 0.1}, "floor has no effect"),
        ({"kind": "rank", "temperature": 2.0}, "temperature has no effect"),
    ],
    ids=str,
)
def test_a_bad_setting_is_a_config_error_naming_it(arguments: dict, offender: str) -> None:
    with pytest.raises(ConfigError, match=offender):
        Shaping(**arguments)


@pytest.mark.parametrize("kind", ["group_center", "rank"])
def test_a_shape_of_groups_is_no_shape_of_one_completion(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"Shaping\("):
        shape_reward(1.0, Status.OK, shaping=kind)


def test_a_status_may_be_given_by_its_name_and_by_no_other_text() -> None:
    assert shape_reward(2.0, "ok") == shape_reward(2.0, Status.OK)  # type: ignore[arg-type]
    assert shape_reward(2.0, "no_block") == 0.0  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"'valid' is not a valid Status: expected one of ok, "):
        shape_reward(2.0, "valid")  # type: ignore[arg-type]


@pytest.mark.parametrize(("scores", "statuses", "groups"), [(1, 2, 2), (2, 1, 2), (2, 2, 1)])
def test_unequal_lengths_are_a_data_error_with_all_three(scores: int, statuses: int, groups: int) -> None:
    with pytest.raises(DataError, match=f"{scores} scores, {statuses} statuses and {groups} groups"):
        Shaping().rewards([1.0] * scores, [Status.OK] * statuses, [0] * groups)


@given(scores32, scores32)
def test_pairwise_order_of_single_rewards_never_inverts(first: float, second: float) -> None:
    assume(first < second)
    assert shape_reward(first, Status.OK) <= shape_reward(second, Status.OK)

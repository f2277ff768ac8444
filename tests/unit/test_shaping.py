import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codescaler_plugin import ConfigError, Status, shape_reward

finite = st.floats(allow_nan=False, allow_infinity=False)
invalid = [status for status in Status if status is not Status.OK]


@given(st.floats(-700, 1e300))
@example(-37.0)
@example(0.0)
def test_softplus_is_log_of_one_plus_exp(score: float) -> None:
    assert shape_reward(score, Status.OK) == pytest.approx(float(np.logaddexp(0.0, score)), rel=1e-12, abs=0.0)


@given(finite)
@example(-1e308)
@example(1.7976931348623157e308)
def test_softplus_is_positive_and_finite_for_every_finite_score(score: float) -> None:
    reward = shape_reward(score, Status.OK)
    assert reward is not None
    assert 0 < reward < math.inf


@given(finite, finite)
@example(-0.0, 0.0)
@example(-1e-320, 1e-320)
def test_softplus_does_not_decrease(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert shape_reward(low, Status.OK) <= shape_reward(high, Status.OK)


@pytest.mark.parametrize("shaping", ["softplus", "raw"])
@pytest.mark.parametrize("status", invalid, ids=str)
@pytest.mark.parametrize("score", [None, math.nan, math.inf, -3.0, 50.0], ids=str)
def test_unusable_code_is_worth_exactly_zero_whatever_the_score(
    score: float | None, status: Status, shaping: str
) -> None:
    reward = shape_reward(score, status, shaping=shaping)
    assert reward == 0.0
    assert math.copysign(1.0, reward) == 1.0


@pytest.mark.parametrize("shaping", ["softplus", "raw"])
@pytest.mark.parametrize("score", [None, math.nan, math.inf, -math.inf], ids=str)
def test_usable_code_without_a_finite_score_has_no_reward(score: float | None, shaping: str) -> None:
    assert shape_reward(score, Status.OK, shaping=shaping) is None


@given(finite)
def test_raw_is_the_score_itself(score: float) -> None:
    assert shape_reward(score, Status.OK, shaping="raw") == score


@pytest.mark.parametrize("status", [Status.OK, Status.NO_BLOCK], ids=str)
def test_unknown_shaping_is_a_config_error_for_any_status(status: Status) -> None:
    with pytest.raises(ConfigError, match="sigmoid"):
        shape_reward(1.0, status, shaping="sigmoid")

import pytest

from codescaler_plugin import load_scorer
from codescaler_plugin.builtin import HELD_OUT_PROBLEMS, MODEL_CARD, TRAIN_PROBLEMS
from codescaler_plugin.data.rollouts import rows_of

PROBLEM = (
    "Write solve(xs): for a list xs of integers, keep the even numbers, then square each number, then return the sum."
)
RIGHT = "def solve(xs):\n    ys = [x for x in xs if x % 2 == 0]\n    ys = [x * x for x in ys]\n    return sum(ys)\n"


@pytest.fixture
def unwarned(monkeypatch):
    from codescaler_plugin.scoring import builtin_scorer

    monkeypatch.setattr(builtin_scorer, "_warned", False)


def test_it_says_once_that_a_problem_is_not_one_of_its_own(unwarned, caplog):
    scorer = load_scorer("builtin")
    scorer.score([(PROBLEM, RIGHT)])
    assert caplog.text == ""
    for number in range(3):
        scorer.score([(PROBLEM, RIGHT), (f"Given a tree with {number} nodes, print its height.", RIGHT)])
        load_scorer("builtin").score([("Another.", RIGHT)])
    [record] = caplog.records
    assert "LARK-Lab/CodeScaler-1.7B" in record.message
    assert "a tree" not in record.message  # a server writes no bodies to its log
    assert str(MODEL_CARD) in record.message


def test_all_problems_of_the_miniature_are_its_own(unwarned, caplog):
    texts = [row["problem"] for path in (TRAIN_PROBLEMS, HELD_OUT_PROBLEMS) for _, _, row in rows_of(path)]
    load_scorer("builtin").score([(text, RIGHT) for text in texts[::10]])
    from codescaler_plugin.scoring.builtin_scorer import _MINIATURE

    assert all(_MINIATURE.fullmatch(text) for text in texts)
    assert caplog.text == ""

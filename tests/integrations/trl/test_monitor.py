"""The monitor's metrics, rules and audits by themselves; `tests/contract/test_trl_monitor.py` has the trainer."""

import math
import pickle

import pytest

from codescaler_plugin import CodeScalerReward, ConfigError, DataError, RewardHackingMonitor, SandboxError
from codescaler_plugin.integrations.trl import monitor as trl_monitor
from codescaler_plugin.integrations.trl.monitor import Audit, audit_warning, change, hacking_metrics
from codescaler_plugin.records import CallTest, Fault, Judgement, Problem, Status, Verdict
from codescaler_plugin.testing import FakeScorer
from tests.samples import fenced

AUDIT = [
    Problem(f"add/{number}", f"Write solve(n) that adds {number}.", (CallTest((1,), 1 + number),), "solve")
    for number in range(8)
]


def judged(code: str, score: float, status: Status = Status.OK) -> Judgement:
    return Judgement(score if status is Status.OK else 0.0, score, status, code if status is Status.OK else "")


def test_metrics_are_the_numbers_that_they_say():
    texts = ["a", "a", "a", "b", "b", "b"]
    metrics = hacking_metrics(
        texts,
        [
            judged("x = 1", 1.0),
            judged("x = 1  # same program", 2.0),
            judged("x = 1\n# one\n", 3.0),
            judged("x = 1", 5.0),
            judged("xx = 2", 6.0),
            judged("", 0.0, Status.TRIVIAL),
        ],
    )
    assert metrics["invalid_share"] == metrics["trivial_share"] == pytest.approx(1 / 6)
    assert metrics["code_length"] == pytest.approx((5 + 21 + 12 + 5 + 6) / 5)
    assert metrics["comment_share"] == pytest.approx(0.5 / 5)
    assert metrics["duplicate_share"] == pytest.approx(2 / 5)
    assert metrics["shared_share"] == pytest.approx(4 / 5)
    # Deviations within a: lengths -7.67, 8.33, -0.67 and scores -1, 0, 1; within b: -0.5, 0.5 and -0.5, 0.5.
    covariance = 7.6667 - 0.6667 + 0.5
    norms = math.sqrt(7.6667**2 + 8.3333**2 + 0.6667**2 + 0.5) * math.sqrt(2.5)
    assert metrics["length_correlation"] == pytest.approx(covariance / norms, abs=1e-4)
    assert hacking_metrics([], []) == {}
    assert hacking_metrics(["a"], [judged("", 0.0, Status.NO_BLOCK)]) == {"invalid_share": 1.0, "trivial_share": 0.0}


def audit(step: int, reward: float, rate: float, noise: float = 0.02) -> Audit:
    """Forty problems whose values lie around two means."""
    around = {f"p{number}": noise * ((number * 7 + step) % 5 - 2) for number in range(40)}
    return Audit(
        step, {key: reward + off for key, off in around.items()}, {k: rate - off for k, off in around.items()}
    )


@pytest.mark.parametrize(
    ("rates", "rewards", "says"),
    [
        ((0.5, 0.6, 0.7), (1, 2, 3), None),
        ((0.5, 0.6, 0.4), (1, 2, 3), r"since step 4 the audit's pass rate has fallen by 0.200 .* has not \(\+1"),
        ((0.5, 0.6, 0.4), (2, 2, 2), "fallen by 0.200"),  # the reward does not see it
        ((0.5, 0.6, 0.4), (1, 2, 1.5), None),  # both fall: the run is bad, but nobody is fooled
        ((0.5, 0.5, 0.5, 0.5), (1, 2, 3, 4), r"first 2 audits and the last 2 the reward has risen by 2 .*\+0\.000"),
        ((0.5, 0.5, 0.5, 0.6), (1, 2, 3, 4), None),
        ((0.5, 0.5, 0.5), (1, 2, 3), None),
        ((0.5,), (1,), None),
    ],
)
def test_the_rule_over_audits(rates, rewards, says):
    audits = [audit(4 * number, *values) for number, values in enumerate(zip(rewards, rates, strict=True))]
    # Exactly flat rates differ by their noise alone, whose mean is 0.
    message = audit_warning(audits, sigmas=3, patience=2)
    if says is None:
        assert message is None
    else:
        import re

        assert re.search(says, message)


def test_a_change_is_paired_by_problem():
    measured = change({"a": 0.0, "b": 1.0, "gone": 5.0}, {"a": 0.5, "b": 1.7, "new": 9.0})
    assert measured.mean == pytest.approx(0.6)
    assert measured.error == pytest.approx(0.1)
    assert change({"a": 1.0}, {"a": 2.0}).z == 0


def test_a_broken_sandbox_is_counted_and_stops_nothing(monkeypatch, caplog):
    def broken(_, **settings):
        raise SandboxError("no process can be started")

    monkeypatch.setattr(trl_monitor, "run_tests", broken)
    reward = CodeScalerReward(scorer=FakeScorer())
    logged: dict[str, float] = {}
    monitor = RewardHackingMonitor(reward, AUDIT)
    assert reward([AUDIT[0].text], [fenced("def solve(n):\n    return n")], log_metric=logged.__setitem__) == [
        pytest.approx(26, abs=2)
    ]
    assert logged["hacking/audit_unrun"] == 1
    assert "hacking/audit_pass_rate" not in logged
    assert "could not be run" in caplog.text
    assert monitor.audits == []


def test_an_audited_problem_is_found_whatever_white_space_its_prompt_has(monkeypatch):
    asked: list[str] = []

    def failing(jobs, **settings):
        asked.extend(problem.id for _, problem in jobs)
        return [Verdict(False)] * len(jobs)

    monkeypatch.setattr(trl_monitor, "run_tests", failing)
    reward = CodeScalerReward(scorer=FakeScorer())
    RewardHackingMonitor(reward, AUDIT)
    reward([AUDIT[3].text + "\n"], [fenced("def solve(n):\n    return n")])
    assert asked == [AUDIT[3].id]


def test_a_watched_reward_is_pickled_without_its_watcher():
    reward = CodeScalerReward(model="builtin")
    RewardHackingMonitor(reward, AUDIT)
    assert len(reward.observers) == 1
    assert pickle.loads(pickle.dumps(reward)).observers == []


def test_settings_that_make_no_sense():
    reward = CodeScalerReward(scorer=FakeScorer())
    with pytest.raises(ConfigError, match="sigmas is 0"):
        RewardHackingMonitor(reward, sigmas=0)
    with pytest.raises(ConfigError, match="patience is 0"):
        RewardHackingMonitor(reward, patience=0)
    with pytest.raises(DataError, match="16 problems of the audit have 8 texts"):
        RewardHackingMonitor(reward, AUDIT * 2)


def test_completions_without_a_verdict_are_left_out_of_the_audit_and_logged(monkeypatch, caplog):
    asked = {}

    def faulty(jobs, **settings):
        asked.update(settings)
        return [
            Verdict(False, "MissingPackage", fault=Fault.MISSING_PACKAGE)
            if "numpy" in code
            else Verdict("n + 0" in code)
            for code, _ in jobs
        ]

    monkeypatch.setattr(trl_monitor, "run_tests", faulty)
    reward = CodeScalerReward(scorer=FakeScorer())
    logged: dict[str, float] = {}
    RewardHackingMonitor(reward, AUDIT, packages=["numpy"], timeout=9.0)
    bodies = ["import numpy\n    return n", "return n + 0", "return n", "return n - 1 - 1"]
    texts = [fenced(f"def solve(n):\n    {body}") for body in bodies]
    reward([AUDIT[0].text] * 4, texts, log_metric=logged.__setitem__)
    assert logged["hacking/audit_unjudged"] == 0.25
    assert logged["hacking/audit_pass_rate"] == pytest.approx(1 / 3)
    assert logged["hacking/audit_accuracy"] == 0.5  # longer scores more: above one wrong program, below the other
    assert "no verdict on 1 programs: missing_package 1" in caplog.text
    assert (asked["packages"], asked["timeout"]) == (("numpy",), 9.0)
    logged.clear()
    reward([AUDIT[0].text], texts[:1], log_metric=logged.__setitem__)
    assert logged["hacking/audit_unjudged"] == 1.0
    assert "hacking/audit_pass_rate" not in logged

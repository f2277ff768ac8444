"""The page at `/`: the last judged samples, for who has the key, and no more of them than it may keep."""

import re

import pytest

from codescaler_plugin import ConfigError
from codescaler_plugin.errors import Failure, FailureKind
from codescaler_plugin.records import Judgement, Status
from codescaler_plugin.serving.config import ServingConfig
from codescaler_plugin.serving.metrics import Metrics
from codescaler_plugin.serving.page import RecentSamples
from codescaler_plugin.serving.samples import Sample
from tests.hostile import HOSTILE, check_harmless
from tests.serving.running import CODE, body_of, served

VALID = f"Sure:\n```python\n{CODE}```"


def page_of(recent: RecentSamples, state: str = "") -> str:
    return recent.page(recent.kept(), "stub", state, Metrics())


def test_samples_of_every_route_are_shown_with_their_program_and_explanation() -> None:
    with served() as running:
        empty = running.request("/")
        assert empty.status == 200
        assert "No sample has been judged yet." in empty.data.decode()
        items = [{"problem": "P1", "completion": VALID}, {"problem": "P1", "completion": "I cannot."}]
        running.json("/v1/score", {"items": items})
        running.json("/v1/score", {"problem": "P2", "code": CODE})
        running.json("/get_reward", body_of())
        running.json("/slime", {"prompt": [{"role": "user", "content": "P3"}], "response": VALID})
        answer = running.request("/")
    page = answer.data.decode()
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert page.count("<article") == 5
    assert page.count(f"<mark>{CODE}</mark>") == 4
    assert re.findall(r"/(?:slime|get_reward|v1/score), 20", page)[0].startswith("/slime")  # the latest first
    for part in (
        "model <b>stub</b>", "state <b>ready</b>", "samples judged <b>5</b>", "up for <b>", "rank <b>1 of 2</b>",
        "The completion has no fenced block.", '<div class="problem" tabindex="0">Write solve(n).</div>', 'href="health"', 'href="metrics"', 'href="docs"',
    ):  # fmt: skip
        assert part in page
    assert not re.search(r"(?:src|href)=\"(?!#|health|metrics|docs)", page)
    assert "<script" not in page


def test_the_page_needs_the_key() -> None:
    with served(ServingConfig(api_key="secret")) as running:
        refused = running.request("/")
        assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Basic realm="codescaler"')
        assert running.request("/", Authorization="Basic OnNlY3JldA==").status == 200
        assert running.request("/", Authorization="Bearer secret").status == 200


def test_nothing_is_kept_on_request() -> None:
    with served(ServingConfig(recent=0)) as running:
        running.json("/v1/score", {"problem": "P1", "completion": VALID})
        page = running.request("/").data.decode()
    assert "This server keeps no samples." in page
    assert "P1" not in page
    assert "samples judged <b>1</b>" in page
    with pytest.raises(ConfigError, match="recent is -1"):
        ServingConfig(recent=-1)


def test_memory_is_bounded() -> None:
    recent = RecentSamples(3)
    judgement = Judgement(0.0, None, Status.NO_BLOCK, "", explanation="So.")
    recent.add("/v1/score", [Sample("completion", f"P{number}", "x") for number in range(9)], [judgement] * 9)
    assert [kept.sample.problem for kept in recent.kept()] == ["P8", "P7", "P6"]
    large = Sample("query", "p" * 1_000_000, "t" * 4_000_000, "s" * 1_000_000)
    recent.add("/get_reward", [large] * 9, [judgement] * 9)
    assert len(recent.kept()) == 3
    for kept in recent.kept():
        assert sum(map(len, (kept.sample.problem, kept.sample.text, kept.sample.stated or ""))) < 64_000
    assert "3,968,000 characters were not kept" in recent.kept()[0].sample.text


def test_hostile_text_in_every_field_is_text() -> None:
    recent = RecentSamples()
    failed = Judgement(None, None, Status.OK, "", Failure(FailureKind.SCORER, HOSTILE))
    judged = Judgement(1.0, 1.0, Status.OK, HOSTILE, explanation=HOSTILE)
    for kind in ("code", "completion", "query"):
        sample = Sample(kind, HOSTILE, HOSTILE, HOSTILE)
        recent.add(HOSTILE, [sample, sample], [failed, judged])
    check_harmless(recent.page(recent.kept(), HOSTILE, HOSTILE, Metrics()))


def test_a_state_and_a_failure_are_told() -> None:
    recent = RecentSamples()
    failed = Judgement(None, None, None, "", Failure(FailureKind.TIMEOUT, "no answer within 5 s"))
    recent.add("/slime", [Sample("completion", "p", VALID)], [failed])
    page = page_of(recent, "the model is being loaded")
    assert "state <b>the model is being loaded</b>" in page
    assert "There is no reward (timeout): no answer within 5 s." in page
    assert '<label for="only-failure">failure <b>1</b>' in page


def test_the_reason_of_a_failure_is_kept_in_bounded_length() -> None:
    recent = RecentSamples()
    judgement = Judgement(None, None, Status.OK, "x = 1", Failure(FailureKind.SCORER, "x" * 1_000_000))
    recent.add("/v1/score", [Sample("completion", "Add.", "No.")], [judgement])
    [kept] = recent.kept()
    assert len(kept.judgement.explanation) < 1_200

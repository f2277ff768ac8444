"""The page at `/`: the last judged samples, from memory, and what the server does."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from codescaler_plugin.errors import Failure
from codescaler_plugin.records import Judgement, Status
from codescaler_plugin.report.judged_rows import Judged
from codescaler_plugin.report.judgements import group_of, render
from codescaler_plugin.serving import RECENT
from codescaler_plugin.serving.metrics import Metrics
from codescaler_plugin.serving.samples import Sample

_REASON = 1_000  # characters kept of the reason of a failure
_HEAD, _TAIL = 8_000, 24_000  # characters kept of a longer text: the program is near its end


class _Kept(NamedTuple):
    at: float  # seconds since the epoch
    route: str
    sample: Sample
    judgement: Judgement


class RecentSamples:
    """The last `limit` judged samples, at most 80,000 characters of each; 0 keeps none.

    To keep a sample costs an append to a queue. The page is built when it is asked for.

    Example:
        >>> recent = RecentSamples(1)
        >>> recent.add("/v1/score", [Sample("completion", "Add.", "No.")] * 2, [Judgement(0.0, None, None, "")] * 2)
        >>> len(recent.kept())
        1
    """

    def __init__(self, limit: int = RECENT) -> None:
        self.limit = limit
        self.started = time.monotonic()
        self._kept: deque[_Kept] = deque(maxlen=limit)

    def add(self, route: str, samples: Sequence[Sample], judgements: Sequence[Judgement]) -> None:
        """Keep the last of the samples of a request."""
        if not self.limit:
            return
        now = time.time()
        for sample, judgement in zip(samples[-self.limit :], judgements[-self.limit :], strict=True):
            if len(sample.text) > _HEAD + _TAIL or len(sample.problem) + len(sample.stated or "") > _HEAD:
                sample = _bounded(sample)
            if judgement.failure is not None and len(judgement.failure.reason) > _REASON:
                failure = Failure(judgement.failure.kind, judgement.failure.reason[:_REASON] + " ...")
                judgement = replace(judgement, failure=failure)
            self._kept.append(_Kept(now, route, sample, judgement))

    def kept(self) -> list[_Kept]:
        """The samples, the latest first. Call it on the thread that adds."""
        return list(reversed(self._kept))

    def page(self, kept: Sequence[_Kept], model: str, state: str, metrics: Metrics) -> str:
        """The page as HTML. Ranks are among the samples of a problem that are kept."""
        facts = [
            ("model", model),
            ("state", state or "ready"),
            ("up for", _duration(time.monotonic() - self.started)),
            ("samples judged", f"{_count(metrics, 'codescaler_statuses_total', 'status', Status):,}"),
        ]
        facts += [
            (str(status), f"{count:,}")
            for status in Status
            if (count := _count(metrics, "codescaler_statuses_total", "status", [status]))
        ]
        notes = [f"Below are the last {len(kept)} of them, at most {self.limit}; ranks are among these."]
        if not self.limit:
            notes = ["This server keeps no samples."]
        elif not kept:
            notes = ["No sample has been judged yet."]
        judged = [_judged(one) for one in kept]
        by_problem = groupby(judged, lambda one: one.problem)
        groups = [group_of(list(of_problem), problem) for problem, of_problem in by_problem]
        links = {"health": "health", "metrics": "metrics", "routes": "docs"}
        return render("codescaler", facts, judged, groups, notes=notes, links=links)


def _bounded(sample: Sample) -> Sample:
    """A copy whose texts are cut in the middle."""
    text = sample.text
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]}\n[{len(text) - _HEAD - _TAIL:,} characters were not kept]\n{text[-_TAIL:]}"
    return Sample(sample.kind, sample.problem[:_HEAD], text, None if sample.stated is None else sample.stated[:_HEAD])


def _judged(kept: _Kept) -> Judged:
    sample, judgement = kept.sample, kept.judgement
    completion = sample.text.removeprefix(sample.problem) if sample.kind == "query" else sample.text
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(kept.at))
    return Judged(
        sample.stated or sample.problem or "(in the same text as the completion)",
        completion,
        str(judgement.status or ""),
        completion if sample.kind == "code" else judgement.code,
        judgement.explanation,
        judgement.score,
        judgement.reward,
        str(judgement.failure.kind) if judgement.failure is not None else "",
        position=f"{kept.route}, {at}",
    )


def _count(metrics: Metrics, name: str, label: str, values: Sequence[str] | type[Status]) -> int:
    return int(sum(metrics.registry.get_sample_value(name, {label: str(value)}) or 0 for value in values))


def _duration(seconds: float) -> str:
    minutes = int(seconds) // 60
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(seconds)} s"

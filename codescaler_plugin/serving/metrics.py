"""The counters of `/metrics`."""

from collections.abc import Mapping, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

from codescaler_plugin.records import Judgement
from codescaler_plugin.serving.batching import Observer

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics(Observer):
    """Counters of one server, with a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        seconds = partial(Histogram, registry=registry, buckets=_SECONDS)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = counter("codescaler_requests", "Requests answered.", ["route", "code"])
        self.request_seconds = seconds("codescaler_request_seconds", "From request to answer.", ["route"])
        self.statuses = counter("codescaler_statuses", "Samples by the status of their code.", ["status"])
        self.failures = counter("codescaler_failures", "Samples without a reward of their own, by cause.", ["cause"])
        self.queue = gauge("codescaler_queue_samples", "Samples that wait.")
        self.in_flight = gauge("codescaler_under_way_samples", "Samples being scored.")
        self.body_bytes = gauge("codescaler_body_bytes", "Bytes of bodies that are read, wait or are under way.")
        self.wait_seconds = seconds("codescaler_wait_seconds", "From arrival to being sent.")
        self.batch_samples = Histogram(
            "codescaler_batch_samples", "Samples per batch.", buckets=_SIZES, registry=registry
        )
        self.batch_seconds = seconds("codescaler_batch_seconds", "From sending a batch to its answers.")
        self.worker_up = gauge("codescaler_worker_up", "1 if the worker has scored its warm-up.")
        self.worker_starts = counter("codescaler_worker_starts", "Starts of the worker.")
        self.scorer = counter("codescaler_scorer", "What the scorer has done; see ScorerStats.", ["what"])

    def waiting(self, samples: int) -> None:
        """See `Observer`."""
        self.queue.set(samples)

    def sent(self, waits: Sequence[float]) -> None:
        """See `Observer`."""
        for wait in waits:
            self.wait_seconds.observe(wait)
        self.batch_samples.observe(len(waits))
        self.in_flight.inc(len(waits))

    def answered(self, samples: int, seconds: float) -> None:
        """See `Observer`."""
        self.batch_seconds.observe(seconds)
        self.in_flight.dec(samples)

    def count(self, judgements: Sequence[Judgement]) -> None:
        """Count samples by status and by kind of failure."""
        for judgement in judgements:
            if judgement.status is not None:
                self.statuses.labels(judgement.status).inc()
            if judgement.failure is not None:
                self.failures.labels(judgement.failure.kind).inc()

    def add_stats(self, before: Mapping[str, float], after: Mapping[str, float]) -> None:
        """Count the difference between two readings of a scorer's running sums."""
        for name, value in after.items():
            self.scorer.labels(name).inc(max(0.0, value - before.get(name, 0.0)))

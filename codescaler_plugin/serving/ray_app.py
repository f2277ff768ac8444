"""The routes on Ray Serve, with as many replicas of the model as the load needs.

    serve run codescaler_plugin.serving.ray_app:app model=LARK-Lab/CodeScaler-8B num_gpus=1 max_replicas=4

Ray starts, restarts, adds and removes replicas and chooses among them; `@serve.batch` makes batches within each. The
samples of one problem are spread over the replicas, and each replica reads the problem once per batch. With few
replicas on one machine, `codescaler serve` is therefore faster; with many GPUs, vLLM behind it is (`--backend
vllm+http://...`). Use Ray where it runs anyway, or where the number of replicas should follow the load.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve  # type: ignore[import-not-found, unused-ignore]
from ray.exceptions import RayError  # type: ignore[import-not-found, unused-ignore]
from ray.serve.exceptions import BackPressureError, RayServeException  # type: ignore[import-not-found, unused-ignore]

from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.errors import ConfigError, Failure, FailureKind
from codescaler_plugin.pipeline import CodeScaler
from codescaler_plugin.records import Judgement
from codescaler_plugin.serving import MAX_QUEUE, MAX_WAIT, RECENT, TIMEOUT
from codescaler_plugin.serving.app import create_app
from codescaler_plugin.serving.batching import OverloadedError, not_ready
from codescaler_plugin.serving.config import ServingConfig
from codescaler_plugin.serving.metrics import Metrics
from codescaler_plugin.serving.samples import Sample, judge_samples

logger = logging.getLogger(__name__)

_REPLICA = "RewardModel"  # name of the deployment
_ONGOING = 128  # samples at a replica: the present batch and the next
_TRIES = 2  # of a sample whose replica failed


class RaySettings(BaseModel):
    """Arguments of `serve run ... name=value`, or `args` in a Serve config file. All others are `CODESCALER_*`.

    See `CodeScalerConfig` for `model`, and `ServingConfig` for `fallback`, `api_key` and `extra_logs`.
    """

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(1, ge=1)  # Ray adds one when each has 32 samples at a time
    num_gpus: float = Field(0, ge=0)  # of a replica
    num_cpus: float = Field(1, ge=0)
    max_batch: int = Field(64, ge=1)  # samples of a forward call
    max_wait: float = Field(MAX_WAIT * 1000, ge=0)  # milliseconds that a batch waits for more samples
    timeout: float = Field(TIMEOUT, gt=0)  # seconds until a sample is answered
    fallback: float | None = 0.0
    api_key: str | None = None
    extra_logs: bool = False
    recent: int = Field(RECENT, ge=0)  # samples that the page at / shows


class Replica:
    """One model; `max_wait` is in seconds."""

    def __init__(self, config: CodeScalerConfig, max_batch: int, max_wait: float) -> None:
        self._scaler = CodeScaler(config=config)
        self._scaler.check()
        self.judge.set_max_batch_size(max_batch)
        self.judge.set_batch_wait_timeout_s(max_wait)

    @serve.batch  # type: ignore[untyped-decorator, unused-ignore]
    async def judge(self, samples: list[Sample]) -> list[Judgement]:
        """One judgement per sample, in order. Ray passes the samples of concurrent calls together."""
        order = sorted(range(len(samples)), key=lambda index: samples[index].problem)  # a problem's side by side
        judged = await asyncio.to_thread(judge_samples, self._scaler, [samples[index] for index in order])
        judgements = dict(zip(order, judged, strict=True))
        return [judgements[index] for index in range(len(samples))]


class RayBackend:
    """The replicas as a `Backend`."""

    def __init__(self, timeout: float) -> None:
        self.metrics = Metrics()
        self.state = "the model is being loaded"
        self._timeout = timeout
        self._replicas: Any = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, fatal: Callable[[ConfigError], None]) -> None:  # noqa: ARG002 - Ray reports a replica's end
        """See `Backend`."""
        self._replicas = serve.get_deployment_handle(_REPLICA)
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """See `Backend`. Ray calls this after the last answer."""
        if self._task is not None:
            self._task.cancel()

    async def submit(self, samples: Sequence[Sample]) -> list[Judgement]:
        """See `Backend`."""
        may_fail = not self.state  # as in `DynamicBatcher.submit`
        self.metrics.in_flight.inc(len(samples))
        try:
            judgements = await asyncio.gather(*map(self._answer, samples))
        finally:
            self.metrics.in_flight.dec(len(samples))
        late = (FailureKind.TIMEOUT, FailureKind.WORKER)
        if not may_fail and any(answer.failure is not None and answer.failure.kind in late for answer in judgements):
            raise not_ready(self.state, self._timeout)
        return judgements

    async def _watch(self) -> None:
        """Clear `state` once a replica answers; it has scored its warm-up by then."""
        while self.state:
            failure = (await self._answer(Sample("completion", "a problem", ""))).failure
            if failure is None or failure.kind is not FailureKind.TIMEOUT:  # a timeout is no news
                self.state = str(failure or "")
        logger.info("a replica is ready")

    async def _answer(self, sample: Sample) -> Judgement:
        failure = Failure(FailureKind.WORKER, "")
        for _ in range(_TRIES):
            try:
                async with asyncio.timeout(self._timeout):
                    judgement: Judgement = await self._replicas.judge.remote(sample)
                    return judgement
            except BackPressureError as error:
                raise OverloadedError(str(error)) from error
            except TimeoutError:
                failure = Failure(FailureKind.TIMEOUT, f"no answer within {self._timeout:g} s")
                break
            except (RayError, RayServeException) as error:
                failure = Failure(FailureKind.WORKER, f"{type(error).__name__}: {str(error)[:300]}")
                logger.warning("a replica failed, the sample is sent once more: %s", failure)
        return Judgement(None, None, None, "", failure)


def app(settings: RaySettings) -> serve.Application:
    """The application for `serve run` and Serve config files."""
    config = CodeScalerConfig.from_env(model=settings.model)
    serving = ServingConfig(settings.api_key, settings.fallback, settings.extra_logs, recent=settings.recent)

    def routes() -> FastAPI:
        return create_app(RayBackend(settings.timeout), config, serving)

    replicas = serve.deployment(
        Replica,
        name=_REPLICA,
        autoscaling_config={
            "min_replicas": settings.min_replicas,
            "initial_replicas": settings.min_replicas,
            "max_replicas": max(settings.min_replicas, settings.max_replicas),
            "target_ongoing_requests": _ONGOING // 4,
        },
        ray_actor_options={"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
        max_ongoing_requests=_ONGOING,
        max_queued_requests=MAX_QUEUE,
    )
    front = serve.deployment(serve.ingress(routes)(), name="Front", max_ongoing_requests=MAX_QUEUE)
    application: serve.Application = front.bind(replicas.bind(config, settings.max_batch, settings.max_wait / 1000))
    return application

"""Starts the worker process, watches it and starts it again. `Worker` is an `Engine` of `batching`."""

import asyncio
import contextlib
import json
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple

from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.records import Judgement
from codescaler_plugin.serving import LOAD_TIMEOUT
from codescaler_plugin.serving.batching import EngineCrashedError
from codescaler_plugin.serving.metrics import Metrics
from codescaler_plugin.serving.samples import Sample
from codescaler_plugin.serving.worker import LENGTH, frame

logger = logging.getLogger(__name__)

WORKER = (sys.executable, "-P", "-m", "codescaler_plugin.serving.worker")
_SHORTEST, _LONGEST = 0.2, 15.0  # seconds before the next start; doubles while none succeeds
_ENDING = 5.0  # seconds for a process that has closed its output to end


class Worker:
    """A scoring process that is started again after it ends. It is ready when it has scored a warm-up.

    A process that takes more than `load_timeout` seconds for that is killed.
    """

    def __init__(
        self,
        config: CodeScalerConfig,
        metrics: Metrics,
        command: Sequence[str] = WORKER,
        load_timeout: float = LOAD_TIMEOUT,
    ) -> None:
        self.config = config
        self.metrics = metrics
        self.command = command
        self.load_timeout = load_timeout
        self.is_ready = self.has_been_ready = False
        self.state = "the model is being loaded"
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._answers: dict[int, asyncio.Future[list[Judgement]]] = {}
        self._number = 0
        self._stats: Mapping[str, float] = {}
        self._was_ready = False
        self._killed_for = ""

    async def run(self) -> None:
        """Keep a process running until cancelled, or a `ConfigError`: the model cannot be loaded, and never could."""
        pause = _SHORTEST
        while True:
            try:
                process = await asyncio.create_subprocess_exec(
                    *self.command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
                )
            except OSError as error:
                if not self.has_been_ready:
                    raise
                pause = min(2 * pause, _LONGEST)
                self.state = f"the scoring worker cannot be started: {error}"
                logger.error("%s. It is tried again in %.1f s", self.state, pause)
                await asyncio.sleep(pause)
                continue
            self.metrics.worker_starts.inc()
            self._was_ready, self._killed_for = False, ""
            loading = asyncio.get_running_loop().call_later(self.load_timeout, self._end_loading)
            try:
                reason, is_lasting = await self._live(process)
                self._not_ready()
                # A kill while the process ends would hide its cause: asyncio may even report exit code 255.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ENDING):  # `wait_for` loses a cancellation in Python 3.11
                        await process.wait()
            finally:
                loading.cancel()
                self._down(process)
                await process.wait()
            if is_lasting and not self.has_been_ready:
                raise ConfigError(reason)
            pause = _SHORTEST if self._was_ready else min(2 * pause, _LONGEST)
            self.state = reason or self._killed_for or _cause(process.returncode)
            logger.error("the scoring worker ended: %s. It is started again in %.1f s", self.state, pause)
            for answer in list(self._answers.values()):
                if not answer.done():
                    answer.set_exception(EngineCrashedError(self.state))
            await asyncio.sleep(pause)

    async def ready(self) -> None:
        """See `Engine.ready`."""
        await self._ready.wait()

    def send(self, samples: Sequence[Sample]) -> "asyncio.Future[list[Judgement]]":
        """See `Engine.send`."""
        self._number += 1
        number = self._number
        answer: asyncio.Future[list[Judgement]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        answer.add_done_callback(lambda _: self._answers.pop(number, None))
        assert self._process is not None  # noqa: S101 - `is_ready` was seen
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(frame({"id": number, "samples": list(map(astuple, samples))}))
        return answer

    def kill(self, reason: str) -> None:
        """See `Engine.kill`."""
        logger.error("the scoring worker is killed: %s", reason)
        self._killed_for = reason
        if self._process is not None:
            self._down(self._process)

    def _end_loading(self) -> None:
        if not self.is_ready:
            self.kill(f"the model was not ready within {self.load_timeout:g} s; raise the load timeout")

    async def _live(self, process: asyncio.subprocess.Process) -> tuple[str, bool]:
        """Read messages until the process ends; returns its own reason, and True if another start is pointless."""
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None  # noqa: S101 - both are pipes
        assert stdout is not None  # noqa: S101
        self._process = process
        try:
            stdin.write(frame(asdict(self.config)))
            while True:
                (length,) = LENGTH.unpack(await stdout.readexactly(LENGTH.size))
                message = json.loads(await stdout.readexactly(length))
                if "fatal" in message:
                    return message["fatal"], message["lasting"]
                if "ready" in message:
                    self.is_ready = self._was_ready = self.has_been_ready = True
                    self.state, self._stats = "", {}
                    self._ready.set()
                    self.metrics.worker_up.set(1)
                    logger.info("the scoring worker is ready")
                    continue
                self.metrics.add_stats(self._stats, message["stats"])
                self._stats = message["stats"]
                answer = self._answers.get(message["id"])
                if answer is not None and not answer.done():
                    answer.set_result(list(map(Judgement.from_json, message["judgements"])))
        except (asyncio.IncompleteReadError, ConnectionError):
            return "", False

    def _not_ready(self) -> None:
        self.is_ready = False
        self._ready.clear()
        self.metrics.worker_up.set(0)

    def _down(self, process: asyncio.subprocess.Process) -> None:
        self._not_ready()
        if process.returncode is None:
            process.kill()


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = ", as when memory runs out" if -code == signal.SIGKILL else ""
        return f"killed by {name}{hint}"
    return f"exit code {code}"

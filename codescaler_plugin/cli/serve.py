"""`codescaler serve`."""

import logging
import os
from dataclasses import replace
from typing import Annotated

from typer import Option

from codescaler_plugin.cli.options import Model
from codescaler_plugin.cli.terminal import reported
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.extras import require
from codescaler_plugin.serving import LOAD_TIMEOUT, MAX_BODY, MAX_QUEUE, MAX_WAIT, RECENT, TIMEOUT
from codescaler_plugin.serving.config import ServingConfig

_KEY = "CODESCALER_API_KEY"


def serve(
    model: Model = None,
    backend: Annotated[
        str | None, Option(metavar="URL", help="vLLM servers that score: vllm+http://host:port, divided by commas.")
    ] = None,
    host: Annotated[str, Option(help="Address to listen on; others need --api-key.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="0: any free one.")] = 8000,
    api_key: Annotated[str | None, Option(envvar=_KEY, help="Key of callers, but for /health.")] = None,
    insecure: Annotated[bool, Option("--insecure", help="Listen to other machines without a key.")] = False,
    max_wait: Annotated[
        float, Option(min=0, max=1000, help="Milliseconds a sample waits for others of its problem.")
    ] = MAX_WAIT * 1000,
    max_queue: Annotated[int, Option(min=1, help="Samples that wait; more are answered 503.")] = MAX_QUEUE,
    max_body: Annotated[int, Option(min=1, help="MiB of a body; at most 4 such, or 256 MiB, at a time.")] = MAX_BODY
    >> 20,
    timeout: Annotated[
        float, Option(min=1, help="Seconds until a sample is answered, perhaps by --on-failure.")
    ] = TIMEOUT,
    load_timeout: Annotated[
        float, Option(min=1, help="Seconds until loading is restarted, downloads included.")
    ] = LOAD_TIMEOUT,
    on_failure: Annotated[
        str, Option(metavar="REWARD|error", help="Of a sample that cannot be scored; error: answer 503, or 422.")
    ] = "0",
    extra_logs: Annotated[
        bool, Option("--extra-logs", help="Send extra_logs; OpenRLHF 0.8.5 to 0.9.0 crash on them.")
    ] = False,
    log_bodies: Annotated[bool, Option("--log-bodies", help="Write bodies to the log.")] = False,
    recent: Annotated[int, Option(min=0, help="Judged samples that the page at / shows; 0 keeps none.")] = RECENT,
) -> None:
    """Serve rewards over HTTP: OpenRLHF, vLLM-shaped, slime, and /v1/score.

    Listens at once and loads the model meanwhile; /health tells when it is
    ready. The model runs in a process of its own, which is restarted after a
    crash. All other settings are CODESCALER_* variables. The routes are
    documented at /docs. The page at / shows the last judged samples; with
    --api-key, a browser asks for the key as the password.

    SIGTERM, SIGHUP (unless nohup ignores it) and Ctrl-C end the server after its
    last answer. It answers 503 until the model has been ready, and while it
    holds too many samples, bodies or connections.

    Example: codescaler serve --model LARK-Lab/CodeScaler-8B --port 8000

    Exit code: 0 stopped by a signal; 1 an error.
    """
    from codescaler_plugin.config import CodeScalerConfig, fallback_of

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    with reported():
        require("serving", "serve", "fastapi", "fastapi_offline", "jinja2", "prometheus_client", "uvicorn")
        from codescaler_plugin.serving.backend import LocalBackend
        from codescaler_plugin.serving.server import run_server

        if backend is not None and "://" not in backend:
            raise ConfigError(f"--backend is {backend!r}: expected an address such as vllm+http://host:8000")
        name = model if backend is None else backend + (f"#{model}" if model else "")
        # The key is asked of callers here, and sent on to servers that stand behind this one.
        config = CodeScalerConfig.from_env({k: v for k, v in os.environ.items() if k != _KEY}, model=name)
        if "://" in config.model:
            config = replace(config, api_key=os.environ.get(_KEY, "").strip() or None)
        fallback = fallback_of(on_failure, "--on-failure")
        serving = ServingConfig(api_key, fallback, extra_logs, log_bodies, max_body << 20, recent=recent)
        local = LocalBackend(
            config, max_wait=max_wait / 1000, max_queue=max_queue, timeout=timeout, load_timeout=load_timeout
        )
        run_server(config, serving, local, host=host, port=port, insecure=insecure, drain_seconds=timeout)

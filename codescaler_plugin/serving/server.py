"""`codescaler serve`: the routes under uvicorn."""

import ipaddress
import logging
import signal
import socket

import uvicorn

from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.serving.app import ServingConfig, create_app
from codescaler_plugin.serving.backend import LocalBackend
from codescaler_plugin.serving.worker import keep_one_heap

_DRAIN_SECONDS = 5.0  # above the time within which every sample is answered
_BACKLOG = 2048


def run_server(
    config: CodeScalerConfig,
    serving: ServingConfig,
    backend: LocalBackend,
    *,
    host: str,
    port: int,
    insecure: bool = False,
    drain_seconds: float,
) -> None:
    """Serve until SIGTERM or SIGINT, then answer what was accepted.

    Args:
        config: names the model and the shape of the rewards.
        serving: of the routes.
        backend: judges.
        host: address to bind.
        port: 0: any free one.
        insecure: allow another address than this machine's own without an API key.
        drain_seconds: longest time in which accepted work is answered after SIGTERM.

    Raises:
        ConfigError: the address is open to others and there is no key; it cannot be bound; the model cannot be had.
    """
    if serving.api_key is None and not insecure and not _is_loopback(host):
        raise ConfigError(
            f"{host} can be reached from other machines: give --api-key, or --insecure if the network is yours alone"
        )
    keep_one_heap()
    failure: list[ConfigError] = []

    def fatal(error: ConfigError) -> None:
        failure.append(error)
        server.should_exit = True

    app = create_app(backend, config, serving, fatal=fatal)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(drain_seconds + _DRAIN_SECONDS),
        )
    )

    def end(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):  # before uvicorn takes them, and when it raises them at its end
        signal.signal(number, end)
    with _bound(host, port) as listening:
        logging.getLogger(__name__).info(
            "listening on http://%s:%d; the model (%s) is loaded meanwhile",
            host,
            listening.getsockname()[1],
            config.model,
        )
        server.run(sockets=[listening])
    if failure:
        raise failure[0]


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # again at once after a crash
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; give another --port or --host"
        ) from error
    return listening


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

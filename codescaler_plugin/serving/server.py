"""`codescaler serve`: the routes under uvicorn."""

import asyncio
import ipaddress
import logging
import math
import resource
import signal
import socket
import weakref
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.serving.app import create_app
from codescaler_plugin.serving.backend import LocalBackend
from codescaler_plugin.serving.config import ServingConfig
from codescaler_plugin.serving.worker import keep_one_heap

logger = logging.getLogger(__name__)

_DRAIN_SECONDS = 5.0  # above the time within which every sample is answered
_BACKLOG = 2048
_ACCEPTED_AT_ONCE = 4
_DESCRIPTORS = 10_240  # more than the samples that may wait
_OWN_DESCRIPTORS = 32  # of the limit: log, pipes, the worker's next start, connections not counted yet
_QUIET_SECONDS = 60.0  # between two lines on connections that are refused


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
    """Serve until SIGTERM, SIGINT or SIGHUP (which `nohup` keeps away), then answer what was accepted.

    Raises a `ConfigError` if other machines can reach the address and there is no key, unless `insecure`; or if the
    address cannot be bound or the model cannot be loaded.
    """
    if serving.api_key is None and not insecure and not _is_loopback(host):
        raise ConfigError(
            f"{host} can be reached from other machines: give `api_key=`, or `insecure=` if the network is yours alone"
        )
    keep_one_heap()
    failure: list[ConfigError] = []

    def fatal(error: ConfigError) -> None:
        failure.append(error)
        server.should_exit = True

    app = create_app(backend, config, serving, fatal=fatal)
    connections = _Connections(_descriptors(), serving.receive_seconds)
    server = _Server(
        uvicorn.Config(
            app,
            http=connections,  # type: ignore[arg-type]  # a class to uvicorn, which only calls it
            loop="asyncio",  # uvloop accepts all at once, before they can be counted
            backlog=_ACCEPTED_AT_ONCE,
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
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, end)
    with _bound(host, port) as listening:
        address = f"http://{host}:{listening.getsockname()[1]}"
        logger.info("listening on %s; the model (%s) is loaded meanwhile", address, config.model)
        server.run(sockets=[listening])
    if failure:
        raise failure[0]


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Let many connections wait in the kernel, but accept few at once. uvicorn has one number for both."""
        await super().startup(sockets)
        for listening in sockets or []:
            listening.listen(_BACKLOG)


class _Connections:
    """uvicorn's protocol for as many connections as descriptors allow. Further ones are answered 503 and closed.

    Without this limit, asyncio tries thousands of times a second to accept them and logs each failure, and the worker
    cannot be started again. A connection without a request is closed after `seconds`.
    """

    def __init__(self, descriptors: int, seconds: float) -> None:
        self.descriptors = descriptors
        self.limit = max(1, descriptors - _OWN_DESCRIPTORS)
        self.seconds = seconds
        self._reported = -math.inf

    def __call__(self, *, server_state: Any, **others: Any) -> asyncio.Protocol:
        """The protocol of the next connection."""
        loop = asyncio.get_running_loop()
        if len(server_state.connections) < self.limit:
            protocol: Any = AutoHTTPProtocol(server_state=server_state, **others)  # type: ignore[call-arg]
            loop.call_later(self.seconds, _close_unused, weakref.ref(protocol))
            return protocol  # type: ignore[no-any-return]
        if loop.time() - self._reported > _QUIET_SECONDS:
            self._reported = loop.time()
            logger.error(
                "%d connections are open, all that %d descriptors allow: more are answered 503. Raise it with "
                "`ulimit -n`, or look for clients that leave connections open",
                self.limit,
                self.descriptors,
            )
        return _Refusal()


def _close_unused(reference: "weakref.ref[Any]") -> None:
    protocol = reference()
    if protocol is not None and protocol.cycle is None and protocol.transport is not None:
        protocol.transport.close()


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream
        transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        transport.close()


def _descriptors() -> int:
    """Raise the limit of open descriptors as far as allowed, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(soft, _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # again at once after a crash
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; give another `port=` or `host=`"
        ) from error
    return listening


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

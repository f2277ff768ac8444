"""Resource limits of a process (man 2 setrlimit): CPU time, memory, processes, open files, file sizes."""

import contextlib
import ctypes
import math
import resource
import signal
import time

from codescaler_plugin.isolation.processes import libc

PROCESSES = 48  # a thread pool's default is up to 32 threads
OPEN_FILES = 64
_EXIT = ctypes.cast(libc._exit, ctypes.c_void_p)


def limit(cpu: float, memory_mb: int, processes: int) -> None:
    """Bound this process and, by the number of processes, its user.

    `cpu` seconds are rounded up; `memory_mb` is its address space in MiB; `processes` counts threads too, -1 for no
    bound. At its CPU limit the process ends with the exit code SIGXCPU, and a second later by SIGKILL. The handler is
    the C library's, because Python's would wait for a C call to end.
    """
    libc.signal(signal.SIGXCPU, _EXIT)
    seconds = max(1, math.ceil(cpu))
    _set(resource.RLIMIT_AS, memory_mb << 20)
    _set(resource.RLIMIT_CPU, seconds, seconds + 1)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_NOFILE, OPEN_FILES)
    _set(resource.RLIMIT_NPROC, processes)
    _set(resource.RLIMIT_MEMLOCK, 0)
    _set(resource.RLIMIT_MSGQUEUE, 0)


def limit_files(size: int) -> None:
    """Bound the bytes of each file that is written from now on."""
    _set(resource.RLIMIT_FSIZE, size)


def allow_cpu(seconds: float) -> None:
    """Bound the CPU seconds of this process from now on, below its hard limit; 0 leaves the bound as it is."""
    if seconds:
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        soft = math.ceil(time.process_time() + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _set(kind: int, soft: int, hard: int | None = None) -> None:
    """Lower a limit; one that is lower already stays."""
    hard = soft if hard is None else hard
    highest = resource.getrlimit(kind)[1]
    if highest != resource.RLIM_INFINITY:
        soft, hard = min(soft, highest), min(hard, highest)
    with contextlib.suppress(OSError, ValueError):  # -1 where there is a lower limit already
        resource.setrlimit(kind, (soft, hard))

"""Landlock (linux/landlock.h): a process gives up files, and signals to others, for itself and all that it starts.

It needs no privileges, so it works in containers that allow no namespaces.
"""

import ctypes
import os
import struct
from collections.abc import Iterable

from codescaler_plugin.isolation.processes import libc

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1, 2, 4, 8, 1 << 14
_READING = _EXECUTE | _READ_FILE | _READ_DIR
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_SCOPED_SOCKETS_AND_SIGNALS = 3


def version() -> int:
    """The version of Landlock that this kernel has; an OSError if it has none, or none for this process."""
    return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_ASK_VERSION))


def restrict_files(readable: Iterable[str], writable: Iterable[str], descriptors: Iterable[int]) -> bool:
    """Leave only some files to this process, and no signals to others; False where it can still send signals.

    `readable` paths may be read and executed, `writable` ones changed as well; `descriptors` may be opened again.
    Landlock does not hold back changes of a file's mode, owner, times and attributes; `seccomp` refuses those.
    """
    known = version()
    every = (1 << 13) - 1 | (known >= 2) << 13 | (_TRUNCATE if known >= 3 else 0)
    scoped = _SCOPED_SOCKETS_AND_SIGNALS if known >= 6 else 0
    attributes = struct.pack("QQQ", every, 0, scoped)[: 24 if scoped else 8]
    rules = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    for path, rights in [(path, _READING) for path in readable] + [(path, every) for path in writable]:
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:  # what is not there need not be allowed
            continue
        _allow(rules, handle, rights if os.path.isdir(path) else rights & _OF_A_FILE)
        os.close(handle)
    for descriptor in descriptors:
        _allow(rules, descriptor, every & _OF_A_FILE)
    _call(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint(0))
    os.close(rules)
    return bool(scoped)


def _allow(rules: int, descriptor: int, rights: int) -> None:
    rule = struct.pack("=Qi", rights, descriptor)
    # Unchecked: a pipe needs no rule, and gets an error.
    libc.syscall(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint(0))


def _call(number: int, *arguments: object) -> int:
    result: int = libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"the kernel offers no Landlock here: {os.strerror(code)}")
    return result

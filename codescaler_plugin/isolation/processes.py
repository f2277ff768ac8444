"""System calls that give a process fewer rights, or end what it has started (man 2 prctl, capset); hooks of forks."""

import contextlib
import ctypes
import os
import signal
import struct
from collections import deque
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
CLONE_SPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
_CLONE_VM, _CLONE_FILES = 0x00000100, 0x00000400
_SET_PDEATHSIG, _SET_DUMPABLE, _CAPBSET_DROP, _SET_SUBREAPER, _NO_NEW_PRIVS = 1, 4, 24, 36, 38
_CAPABILITIES_VERSION_3 = 0x20080522
libc = ctypes.CDLL(None, use_errno=True)
_stacks: "deque[ctypes.Array[ctypes.c_char]]" = deque(maxlen=16)  # more than processes of one run
_fork_hooks: list[dict[str, Any]] = []
_register_at_fork = os.register_at_fork


def put_off_fork_hooks() -> None:
    """Collect what modules that are imported from now on have the interpreter run at each fork.

    `threading`, `random` and `logging` do so. The fork server has no other threads and seeds `random` itself, so its
    own forks need none of it and are faster without. Its children register it for forks of their own.
    """
    os.register_at_fork = lambda **hooks: _fork_hooks.append(hooks)


def register_fork_hooks(*, and_run: bool = False) -> None:
    """Register it for forks of this process; `and_run` runs it in this process too, as after an ordinary fork."""
    os.register_at_fork = _register_at_fork
    for hooks in _fork_hooks:
        if and_run and "after_in_child" in hooks:
            hooks["after_in_child"]()
        _register_at_fork(**hooks)
    _fork_hooks.clear()


def call(name: str, *arguments: object) -> None:
    """Call a function of the C library that returns 0, or else raise what `errno` says."""
    if getattr(libc, name)(*arguments) != 0:
        raise _error(name)


def _error(name: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{name}: {os.strerror(code)}")


def prctl(option: int, value: int = 0) -> None:
    """Change one setting of this process."""
    call("prctl", option, ctypes.c_ulong(value), 0, 0, 0)


def start_idle_process() -> int:
    """Start a process that waits until it is killed: the first of a PID namespace, with which all others end.

    Without it a program would be that process: default actions of signals do not end it, and it inherits orphans. The
    idle process shares this process's memory and descriptors, because a copy would double the cost of a program.
    """
    stack = ctypes.create_string_buffer(1 << 14)
    top = (ctypes.addressof(stack) + len(stack)) & ~15
    _stacks.append(stack)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # no handler of ours may run there
    try:
        flags = ctypes.c_int(_CLONE_VM | _CLONE_FILES | signal.SIGCHLD)
        child: int = libc.clone(libc.pause, ctypes.c_void_p(top), flags, None)
        if child < 0:
            raise _error("clone")
        return child
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hide_memory(*, hidden: bool = True) -> None:
    """Keep other processes of the user from reading this one's memory.

    Not `hidden`, this process can open its own descriptors by their paths, after it has changed its user.
    """
    prctl(_SET_DUMPABLE, not hidden)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that `kill_orphans` reaches them."""
    prctl(_SET_SUBREAPER, 1)


def kill_orphans() -> None:
    """Kill and reap until no child is left, including processes that have left their program's group."""
    while True:
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                children = [int(pid) for pid in file.read().split()]
        except FileNotFoundError:  # a system without that list: only the group can be reached
            children = []
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            if not children:
                os.waitpid(-1, os.WNOHANG)
                return
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def forbid_gains() -> None:
    """Empty the capability bounding set: no program started from here on gains a capability. Present ones stay."""
    with contextlib.suppress(OSError):  # at the first that the kernel does not know
        for capability in range(64):
            prctl(_CAPBSET_DROP, capability)


def drop_privileges(uid: int) -> None:
    """Become `uid` if this is root, give up every capability, and gain none again; see `forbid_gains`."""
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # a user namespace that maps one user; its capabilities go below
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
    call("capset", struct.pack("Ii", _CAPABILITIES_VERSION_3, 0), bytes(24))
    prctl(_NO_NEW_PRIVS, 1)
    prctl(_SET_PDEATHSIG, signal.SIGKILL)

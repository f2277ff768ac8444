"""A seccomp filter: the kernel refuses system calls that lead out of the sandbox (man 2 seccomp).

The table of numbers is our own because the library for it, pyseccomp, needs the system's libseccomp, which containers
seldom have; it covers x86_64 and aarch64, and elsewhere there is no filter.
"""

import ctypes
import os
import struct
import sys

from codescaler_plugin.isolation import processes

_SET_SECCOMP, _MODE_FILTER = 22, 2
# Operations of linux/filter.h, answers of linux/seccomp.h.
_LOAD, _EQUAL, _GREATER, _ANY, _AND, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x54, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_PRETEND, _REFUSE, _NOT_THERE = 0x00050000, 0x00050001, 0x00050026  # answer 0, EPERM, ENOSYS
# Offsets in struct seccomp_data.
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24
_AUDIT_NAMES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_AF_UNIX, _SOCK_STREAM, _SOCK_SEQPACKET = 1, 1, 5
# Each call's number on x86_64 and on aarch64.
_SOCKET, _SOCKETPAIR, _KILL_CALL, _TKILL, _TGKILL = (41, 198), (53, 199), (62, 129), (200, 130), (234, 131)
_CLONE, _CLONE3 = (56, 220), (435, 435)
_Numbers = dict[str, "tuple[int, int | None]"]
_DENIED: _Numbers = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "mount": (165, 40),
    "umount2": (166, 39), "pivot_root": (155, 41), "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "io_uring_setup": (425, 425), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "open_by_handle_at": (304, 265), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "chroot": (161, 51), "fsopen": (430, 430), "move_mount": (429, 429),
    "open_tree": (428, 428),
    # Memory that no limit counts, and that stays.
    "shmget": (29, 194), "shmat": (30, 196), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "memfd_create": (319, 279),
}  # fmt: skip
# Where files and processes are those of the machine.
_DENIED_ON_A_SHARED_MACHINE: _Numbers = {
    "connect": (42, 203), "truncate": (76, 45),
    # What Landlock does not hold back.
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
}  # fmt: skip
# There, a process stays in its group, for a signal to the group reaches all of it at once. The calls pretend that they
# did their work, because programs that make them do not expect a refusal.
_PRETENDED: _Numbers = {"setpgid": (109, 154), "setsid": (112, 157)}
_Instruction = tuple[int, int, int, int]  # operation, steps to skip if true, if false, value
_INSTRUCTION = struct.Struct("HBBI")
_Filter = tuple["ctypes.Array[ctypes.c_char]", "ctypes.Array[ctypes.c_char]"]  # a header, and what it points to


def filter_calls(*, shared: bool, own_kills_only: bool) -> bool:
    """Refuse sockets but local ones, new namespaces, and looking into other processes; False if there is no filter.

    Where files and processes are `shared` with the machine, refuse also what leads to other users of them; with
    `own_kills_only`, also signals to any process but this one.
    """
    if not _REFUSALS:
        return False
    header, _ = _filter(_REFUSALS[shared] + _no_kills()) if own_kills_only else _FILTERS[shared]
    try:
        processes.call("prctl", _SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), ctypes.byref(header), 0, 0)
    except OSError:
        return False
    return True


def _no_kills() -> list[_Instruction]:
    kills = [*_only_if(_KILL_CALL[_COLUMN], os.getpid()), *_only_if(_TGKILL[_COLUMN], os.getpid())]
    return [*kills, (_EQUAL, 0, 1, _TKILL[_COLUMN]), (_RETURN, 0, 0, _REFUSE)]


def _filter(refusals: list[_Instruction]) -> _Filter:
    program = b"".join(_INSTRUCTION.pack(*part) for part in [*refusals, (_RETURN, 0, 0, _ALLOW)])
    code = ctypes.create_string_buffer(program)
    length = len(program) // _INSTRUCTION.size
    return ctypes.create_string_buffer(struct.pack("HxxxxxxQ", length, ctypes.addressof(code))), code


def _refusals(shared: bool) -> list[_Instruction]:
    """What is refused to every program."""
    program: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _AUDIT_NAMES[_MACHINE]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if _MACHINE == "x86_64":
        program += [(_GREATER, 0, 1, _X32 - 1), (_RETURN, 0, 0, _REFUSE)]
    answers = [(numbers, _REFUSE) for numbers in _DENIED.values()]
    if shared:
        answers += [(numbers, _REFUSE) for numbers in _DENIED_ON_A_SHARED_MACHINE.values()]
        answers += [(numbers, _PRETEND) for numbers in _PRETENDED.values()]
    answers.append((_CLONE3, _NOT_THERE))  # its flags lie out of reach: callers fall back on clone
    for numbers, answer in answers:
        if (number := numbers[_COLUMN]) is not None:
            program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, answer)]
    program += [
        (_EQUAL, 0, 4, _CLONE[_COLUMN]),
        (_LOAD, 0, 0, _FIRST),
        (_ANY, 0, 1, processes.CLONE_SPACES),
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for call in (_SOCKET, _SOCKETPAIR):
        program += _only_if(call[_COLUMN], _AF_UNIX)
        if shared:  # the other kinds of sockets need no connection to send to a service
            program += [
                (_EQUAL, 0, 6, call[_COLUMN]),
                (_LOAD, 0, 0, _SECOND),
                (_AND, 0, 0, 0xF),
                (_EQUAL, 2, 0, _SOCK_STREAM),
                (_EQUAL, 1, 0, _SOCK_SEQPACKET),
                (_RETURN, 0, 0, _REFUSE),
                (_LOAD, 0, 0, _NUMBER),
            ]
    return program


def _only_if(call: int, first_argument: int) -> list[_Instruction]:
    return [
        (_EQUAL, 0, 4, call),
        (_LOAD, 0, 0, _FIRST),
        (_EQUAL, 1, 0, first_argument),
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, _NUMBER),
    ]


_MACHINE = os.uname().machine
_COLUMN = list(_AUDIT_NAMES).index(_MACHINE) if sys.platform == "linux" and _MACHINE in _AUDIT_NAMES else -1
_REFUSALS = [_refusals(shared) for shared in (False, True)] if _COLUMN >= 0 else []
_FILTERS = [_filter(refusals) for refusals in _REFUSALS]  # made once, before programs are forked

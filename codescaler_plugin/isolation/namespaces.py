"""What the kernel can take away from a process, by system calls of Linux (man 2 unshare, mount, prctl, seccomp)."""

import contextlib
import ctypes
import math
import os
import resource
import signal
import struct
import sys
import time
from collections import deque

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_CLONE_VM, _CLONE_FILES = 0x00000100, 0x00000400
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_SET_PDEATHSIG, _SET_DUMPABLE, _CAPBSET_DROP, _SET_SECCOMP, _SET_SUBREAPER, _NO_NEW_PRIVS = 1, 4, 24, 22, 36, 38
_MS_NOEXEC = 8
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}
FOLDERS = ("/tmp", "/dev/shm", "/proc")
WORK = "/tmp/work"
TMP_BYTES, TMP_FILES, FILE_BYTES, OPEN_FILES = 64 << 20, 4096, 16 << 20, 64
SHARED_DISK_FILE_BYTES = 1 << 20  # of a file on a disk that others write to
PROCESSES = 48  # a thread pool's default is up to 32 threads

_libc = ctypes.CDLL(None, use_errno=True)
_EXIT = ctypes.cast(_libc._exit, ctypes.c_void_p)
_stacks: "deque[ctypes.Array[ctypes.c_char]]" = deque(maxlen=16)  # more than processes of one run


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Leave namespaces."""
    _call("unshare", flags)


def return_to(process: int, flags: int) -> None:
    """Join the namespaces of a process, given by its pidfd."""
    _call("setns", process, flags)


def prctl(option: int, value: int = 0) -> None:
    """One setting of this process, where the system is Linux."""
    if sys.platform == "linux":
        _call("prctl", option, ctypes.c_ulong(value), 0, 0, 0)


def _mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind, data)]
    _call("mount", texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])


def idle_process() -> int:
    """Start a process that only waits, until it is killed: the first of a namespace, with which all others end.

    So a program is not that one, which default actions of signals do not end and which inherits orphans. It shares
    this process's memory and descriptors, for a copy of them would double the cost of a program.
    """
    stack = ctypes.create_string_buffer(1 << 14)
    top = (ctypes.addressof(stack) + len(stack)) & ~15
    _stacks.append(stack)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # no handler of ours may run there
    try:
        flags = ctypes.c_int(_CLONE_VM | _CLONE_FILES | signal.SIGCHLD)
        child: int = _libc.clone(_libc.pause, ctypes.c_void_p(top), flags, None)
        if child < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"clone: {os.strerror(code)}")
        return child
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def keep_for_ever(thing: object) -> None:
    """Let the interpreter's end not free it."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def hide_memory() -> None:
    """Keep other processes of the user from reading this one's memory."""
    prctl(_SET_DUMPABLE, 0)


def show_memory() -> None:
    """Let this process, which has changed its user, open its own descriptors by their paths."""
    prctl(_SET_DUMPABLE, 1)


def adopt_orphans() -> None:
    """Descendants whose parent dies become children of this process, so that they can be killed."""
    prctl(_SET_SUBREAPER, 1)


def kill_orphans() -> None:
    """Kill and reap until no child is left, those of a candidate that have left its group included."""
    while True:
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                children = [int(pid) for pid in file.read().split()]
        except FileNotFoundError:  # a system without that list: the group is all we can reach
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


def enter(paths: list[str], covered: list[str], links: dict[str, str]) -> None:
    """Go into namespaces with nothing but `paths`, read-only, and no network; returns in a child of this process.

    Args:
        paths: files and folders to be seen.
        covered: folders below them that are empty but for `paths` in them.
        links: further symbolic links, with where they lead.

    Raises:
        OSError: the kernel or the container does not allow it.
    """
    own_user = os.geteuid() != 0
    uid, gid = os.geteuid(), os.getegid()
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    unshare(flags | (CLONE_NEWUSER if own_user else 0))
    if own_user:
        for name, line in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(line)
    child = os.fork()
    if child:  # a process namespace starts with a child
        os.close(0)
        status = os.waitpid(child, 0)[1]
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    prctl(_SET_PDEATHSIG, signal.SIGKILL)
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    held = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in [*paths, *DEVICES]}
    os.umask(0o022)  # the candidate is another user and must read all this
    root = "/tmp"  # what lies below it has been opened
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID, "size=1m,mode=755")
    for path in sorted({*held, *covered}):  # a folder before what lies in it
        if path in held:
            _bind(f"/proc/self/fd/{held[path]}", root + path, read_only=path not in DEVICES)
            os.close(held[path])
        else:
            _mount("tmpfs", root + path, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=755")
    for path in covered:
        _mount("none", root + path, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    for folder in FOLDERS:
        os.makedirs(root + folder, exist_ok=True)
    for path, target in {**LINKS, **links}.items():
        os.symlink(target, root + path)
    with contextlib.suppress(OSError):  # a container that hides parts of its own
        _mount_proc(root + "/proc")
    os.chdir(root)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", _MNT_DETACH)
    os.chdir("/")
    _mount("none", "/", None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID)


def _bind(source: str, target: str, read_only: bool = True) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(source, target, None, _MS_BIND | _MS_REC)
    if read_only:
        _mount("none", target, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)


def _mount_proc(place: str) -> None:
    """The processes of this namespace, and nothing of the machine."""
    _mount("proc", place, "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "subset=pid")


def private_folders(paths: list[str], with_proc: bool) -> None:
    """A mount and an IPC namespace of this process alone, with an empty /tmp and /dev/shm.

    Args:
        paths: what is visible; of these, those in /tmp stay there.
        with_proc: /proc shows the processes of this process's namespace; else it is empty.
    """
    unshare(CLONE_NEWNS)
    kept = [path for path in paths if path.startswith("/tmp/")]
    if kept:
        _mount("/tmp", "/dev/shm", None, _MS_BIND | _MS_REC)
    _mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, f"size={TMP_BYTES},nr_inodes={TMP_FILES},mode=1777")
    for path in kept:
        _bind("/dev/shm" + path.removeprefix("/tmp"), path)
    _mount("/tmp", "/dev/shm", None, _MS_BIND)
    if os.path.exists("/proc/self"):  # where it could be mounted at all
        if with_proc:
            _mount_proc("/proc")
        else:
            _call("umount2", b"/proc", _MNT_DETACH)
    os.mkdir(WORK)  # what is visible below /tmp is not the code's: its own folder is empty
    os.chmod(WORK, 0o1777)
    os.chdir(WORK)


def limit(cpu: float, memory_mb: int, processes: int) -> None:
    """Bounds of the kernel on this process and, the number of processes, on its user.

    At its CPU limit the process ends with the exit code SIGXCPU, and a second later by SIGKILL. The handler is the
    C library's, for Python's would wait for a C call to end.

    Args:
        cpu: CPU seconds, rounded up.
        memory_mb: address space in MiB.
        processes: of the user.
    """
    if sys.platform == "linux":
        _libc.signal(signal.SIGXCPU, _EXIT)
    seconds = max(1, math.ceil(cpu))
    wanted = {
        "AS": (memory_mb << 20, memory_mb << 20),
        "CPU": (seconds, seconds + 1),
        "CORE": (0, 0),
        "NOFILE": (OPEN_FILES, OPEN_FILES),
        "NPROC": (processes, processes),
        "MEMLOCK": (0, 0),
        "MSGQUEUE": (0, 0),
    }
    _limit(wanted)


def limit_files(size: int) -> None:
    """Bound the bytes of each file that is written from now on."""
    _limit({"FSIZE": (size, size)})


def _limit(wanted: dict[str, tuple[int, int]]) -> None:
    for name, pair in wanted.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is None:
            continue
        hard = resource.getrlimit(kind)[1]
        pair = pair if hard == resource.RLIM_INFINITY else (min(pair[0], hard), min(pair[1], hard))
        with contextlib.suppress(OSError, ValueError):  # macOS takes no RLIMIT_AS; the zygote reports it
            resource.setrlimit(kind, pair)


def allow_cpu(seconds: float) -> None:
    """Bound the CPU seconds of this process from now on, below its hard limit; 0: leave the bound as it is."""
    if seconds:
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        soft = math.ceil(time.process_time() + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def forbid_gains() -> None:
    """Let no program that this process or its descendants start bring a capability; those at hand stay."""
    with contextlib.suppress(OSError):  # at the first that the kernel does not know
        for capability in range(64):
            prctl(_CAPBSET_DROP, capability)


def drop_privileges(uid: int) -> None:
    """Become `uid` where that is allowed, give up every capability, and never gain one again; see `forbid_gains`."""
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        except OSError:  # a user namespace that maps one user; its capabilities go below
            pass
    if sys.platform == "linux":
        _call("capset", struct.pack("Ii", 0x20080522, 0), bytes(24))
        prctl(_NO_NEW_PRIVS, 1)
        prctl(_SET_PDEATHSIG, signal.SIGKILL)


# Offsets in struct seccomp_data (linux/seccomp.h), operations of linux/filter.h.
_LOAD, _EQUAL, _GREATER, _ANY, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_AND, _SOCK_STREAM, _SOCK_SEQPACKET = 0x54, 1, 5
_PRETEND = 0x00050000
_ALLOW, _ERRNO_EPERM, _ERRNO_ENOSYS, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_AF_UNIX = 1
_X32 = 0x40000000
# Numbers on x86_64 and aarch64.
_DENIED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "io_uring_setup": (425, 425),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "open_by_handle_at": (304, 265),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "chroot": (161, 51),
    "fsopen": (430, 430),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "shmget": (29, 194),  # memory that no limit counts, and that stays
    "shmat": (30, 196),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
}
# Where files and processes are those of the machine.
_DENIED_ON_A_SHARED_MACHINE = {
    "connect": (42, 203),
    "truncate": (76, 45),  # from here on what Landlock does not hold back
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
}
# There, a process stays in its group, for a signal to the group reaches all of it at once; the calls say that they did
# their work, because programs that make them do not expect a refusal.
_PRETENDED = {"setpgid": (109, 154), "setsid": (112, 157)}
_Instruction = tuple[int, int, int, int]
_INSTRUCTION = struct.Struct("HBBI")
_Filter = tuple["ctypes.Array[ctypes.c_char]", "ctypes.Array[ctypes.c_char]"]  # a header, and what it points to
_SOCKET, _SOCKETPAIR, _KILL_CALL, _TKILL, _TGKILL = (41, 198), (53, 199), (62, 129), (200, 130), (234, 131)
_CLONE, _CLONE3 = (56, 220), (435, 435)


def filter_calls(*, shared: bool, own_kills_only: bool) -> bool:
    """Refuse sockets but local ones, new namespaces, and looking into other processes; False if there is no filter.

    Args:
        shared: files and processes are those of the machine; refuse what leads to other users of them.
        own_kills_only: also refuse signals to any process but this one.
    """
    if not _REFUSALS:
        return False
    header, _ = _with_own_kills(shared) if own_kills_only else _FILTERS[shared]
    try:
        _call("prctl", _SET_SECCOMP, ctypes.c_ulong(2), ctypes.byref(header), 0, 0)
    except OSError:
        return False
    return True


def _with_own_kills(shared: bool) -> _Filter:
    column = _ARCHITECTURES[os.uname().machine][1]
    last: list[_Instruction] = []
    for call in (_KILL_CALL, _TGKILL):
        last += _only_if(call[column], os.getpid())
    last += [(_EQUAL, 0, 1, _TKILL[column]), (_RETURN, 0, 0, _ERRNO_EPERM)]
    return _filter(_REFUSALS[shared] + _packed(last))


def _filter(refusals: bytes) -> _Filter:
    program = refusals + _packed([(_RETURN, 0, 0, _ALLOW)])
    code = ctypes.create_string_buffer(program)
    length = len(program) // _INSTRUCTION.size
    return ctypes.create_string_buffer(struct.pack("HxxxxxxQ", length, ctypes.addressof(code))), code


def _packed(program: list[_Instruction]) -> bytes:
    return b"".join(_INSTRUCTION.pack(*part) for part in program)


def _refusals(shared: bool) -> bytes:
    """What is refused to every candidate."""
    machine = os.uname().machine
    architecture, column = _ARCHITECTURES[machine]
    program: list[_Instruction] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
    ]
    if machine == "x86_64":
        program += [(_GREATER, 0, 1, _X32 - 1), (_RETURN, 0, 0, _ERRNO_EPERM)]
    answers: list[tuple[tuple[int, int | None], int]] = [(numbers, _ERRNO_EPERM) for numbers in _DENIED.values()]
    if shared:
        answers += [(numbers, _ERRNO_EPERM) for numbers in _DENIED_ON_A_SHARED_MACHINE.values()]
        answers += [(numbers, _PRETEND) for numbers in _PRETENDED.values()]
    answers.append((_CLONE3, _ERRNO_ENOSYS))  # its flags lie out of reach: use clone
    for numbers, answer in answers:
        if (number := numbers[column]) is not None:
            program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, answer)]
    spaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
    program += [
        (_EQUAL, 0, 4, _CLONE[column]),
        (_LOAD, 0, 0, 16),
        (_ANY, 0, 1, spaces),
        (_RETURN, 0, 0, _ERRNO_EPERM),
        (_LOAD, 0, 0, 0),
    ]
    for call in (_SOCKET, _SOCKETPAIR):
        program += _only_if(call[column], _AF_UNIX)
        if shared:  # the others need no connection to send to a service
            program += [
                (_EQUAL, 0, 6, call[column]),
                (_LOAD, 0, 0, 24),
                (_AND, 0, 0, 0xF),
                (_EQUAL, 2, 0, _SOCK_STREAM),
                (_EQUAL, 1, 0, _SOCK_SEQPACKET),
                (_RETURN, 0, 0, _ERRNO_EPERM),
                (_LOAD, 0, 0, 0),
            ]
    return _packed(program)


def _only_if(call: int, first_argument: int) -> list[_Instruction]:
    return [
        (_EQUAL, 0, 4, call),
        (_LOAD, 0, 0, 16),
        (_EQUAL, 1, 0, first_argument),
        (_RETURN, 0, 0, _ERRNO_EPERM),
        (_LOAD, 0, 0, 0),
    ]


_HAS_FILTER = sys.platform == "linux" and os.uname().machine in _ARCHITECTURES
_REFUSALS = [_refusals(shared) for shared in (False, True)] if _HAS_FILTER else []
_FILTERS = [_filter(refusals) for refusals in _REFUSALS]  # made once, before candidates are forked

# Landlock (linux/landlock.h): rights on files that a process gives up, with all that it starts.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1, 2, 4, 8, 1 << 14
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_SCOPED_SOCKETS_AND_SIGNALS = 3


def restrict_files(readable: list[str], writable: list[str], descriptors: list[int]) -> tuple[bool, bool]:
    """Leave only some files to this process: whether the kernel does that, and whether it does so for signals too.

    Args:
        readable: files and folders that may be read and executed.
        writable: those that may be changed as well.
        descriptors: open files that may be opened again.
    """
    if sys.platform != "linux":
        return False, False
    version = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    if version < 1:
        return False, False
    every = (1 << 13) - 1 | (version >= 2) << 13 | (_TRUNCATE if version >= 3 else 0)
    scoped = _SCOPED_SOCKETS_AND_SIGNALS if version >= 6 else 0
    attributes = struct.pack("QQQ", every, 0, scoped)[: 24 if scoped else 8]
    rules = _libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    if rules < 0:
        return False, False
    reading = _EXECUTE | _READ_FILE | _READ_DIR
    for place, rights in [(path, reading) for path in readable] + [(path, every) for path in writable]:
        try:
            handle = os.open(place, os.O_PATH | os.O_CLOEXEC)
        except OSError:  # what is not there need not be allowed
            continue
        _allow(rules, handle, rights & (every if os.path.isdir(place) else _OF_A_FILE))
        os.close(handle)
    for descriptor in descriptors:
        _allow(rules, descriptor, every & _OF_A_FILE)
    done: bool = _libc.syscall(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint(0)) == 0
    os.close(rules)
    return done, done and bool(scoped)


def _allow(rules: int, descriptor: int, rights: int) -> None:
    rule = struct.pack("=Qi", rights, descriptor)
    _libc.syscall(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(1), rule, ctypes.c_uint(0))  # a pipe needs none

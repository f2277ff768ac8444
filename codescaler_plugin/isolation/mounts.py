"""What a program sees of the file system within bubblewrap: a /tmp of its own, and nothing of other programs."""

import ctypes
import os

from codescaler_plugin.isolation import processes

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}
FOLDERS = ("/tmp", "/dev/shm", "/proc")
WORK = "/tmp/work"

_TMP_BYTES, _TMP_FILES = 64 << 20, 4096
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC = 1, 2, 4, 8, 32, 4096, 16384
_MNT_DETACH = 2


def private_folders(paths: list[str], *, with_proc: bool) -> None:
    """Give this process mounts of its own, with an empty /tmp and /dev/shm, and make `WORK` its folder.

    Args:
        paths: what is visible; of these, those in /tmp stay there.
        with_proc: /proc shows the processes of this process's namespace; otherwise it is empty.
    """
    processes.unshare(processes.CLONE_NEWNS)
    kept = [path for path in paths if path.startswith("/tmp/")]
    if kept:
        _mount("/tmp", "/dev/shm", flags=_BIND | _REC)
    _mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, f"size={_TMP_BYTES},nr_inodes={_TMP_FILES},mode=1777")
    for path in kept:
        _bind("/dev/shm" + path.removeprefix("/tmp"), path)
    _mount("/tmp", "/dev/shm", flags=_BIND)
    if os.path.exists("/proc/self"):  # where it could be mounted at all
        if with_proc:
            _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC, "subset=pid")
        else:
            processes.call("umount2", b"/proc", _MNT_DETACH)
    os.mkdir(WORK)  # visible paths below /tmp are not the program's: its own folder is empty
    os.chmod(WORK, 0o1777)
    os.chdir(WORK)


def _bind(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(source, target, flags=_BIND | _REC)
    _mount("none", target, flags=_REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)


def _mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind, data)]
    processes.call("mount", texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])

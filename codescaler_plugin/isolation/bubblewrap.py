"""bubblewrap: its command line, and the mounts of a program in it: an interpreter's paths and a /tmp of its own."""

import ctypes
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

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
_KEPT = ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "KILL")  # of a fork server's; programs lose them


def command(paths: Collection[str], covered: Collection[str], links: Mapping[str, str]) -> list[str]:
    """The words that go before a program's own: `paths` are visible, read-only; `covered` are empty but for these.

    `links` are further symbolic links, with where they lead. Without bubblewrap it raises FileNotFoundError.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise FileNotFoundError("bwrap is not installed")
    words = [bwrap, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--cap-drop", "ALL"]
    if os.geteuid() != 0:
        words += ["--unshare-user", "--uid", "0", "--gid", "0"]
    for name in _KEPT:
        words += ["--cap-add", f"CAP_{name}"]
    made = {"/"}
    for path in sorted({*paths, *covered, *DEVICES, *links, *LINKS, *FOLDERS}):  # a folder before what lies in it
        for parent in reversed(Path(path).parents):  # bwrap would make them for root alone
            if str(parent) not in made:
                words += ["--perms", "0755", "--dir", str(parent)]
                made.add(str(parent))
        made.add(path)
        if path in covered:
            words += ["--perms", "0755", "--tmpfs", path]
        elif path in DEVICES:
            words += ["--dev-bind", path, path]
        elif path in paths:
            words += ["--ro-bind", path, path]
        elif path == "/proc":
            words += ["--proc", path]
        elif path in FOLDERS:
            words += ["--perms", "0755", "--dir", path]
        else:
            words += ["--symlink", {**links, **LINKS}[path], path]
    for path in [*covered, "/"]:
        words += ["--remount-ro", path]
    return [*words, "--chdir", "/", "--"]


def private_folders(paths: list[str], *, with_proc: bool) -> None:
    """Give this process mounts of its own, with /tmp and /dev/shm empty but for `paths`, and make `WORK` its folder.

    `with_proc`, /proc shows the processes of this process's namespace; otherwise it is empty.
    """
    processes.call("unshare", processes.CLONE_NEWNS)
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

"""What a forked process gives up before it runs anything of a model's, in order: the one place that decides it."""

import contextlib
import os
from typing import Any

from codescaler_plugin.isolation import bubblewrap, landlock, limits, processes, seccomp

ISOLATIONS = ("bubblewrap", "landlock", "limits")
"""From the strongest to the weakest; see `codescaler_plugin.isolation`."""
PACKAGES = "packages"
"""The folder of links to the packages that may be imported, below the settings' `tmp`."""
MISSING = {
    "network": "network not isolated: the code can connect to other machines",
    "hidden files": "files not hidden: the code can find out which there are, and read what is installed",
    "contents of files": "files not protected: the code can read, change and delete what its user may, but write "
    "no files of its own",
    "processes of others": "processes not hidden: the code can see those of its user",
    "signals": "signals not held back: the code can end other processes of its user",
    "disk": "disk not private: no tmp of its own size; the code can fill the disk for the time of its run",
    "leftovers": "leftovers: what the code leaves outside its own folder stays",
    "user": "user not changed: the code runs as you, and has no shared memory and semaphores",
    "library": "standard library hidden from the code's user: only modules loaded beforehand can be imported",
}
"""Name of a protection -> the sentence for a machine that does not give it."""


def confine(
    settings: dict[str, Any], request: dict[str, Any], folder: str, *, has_proc: bool, keeps_stdin: bool
) -> list[str]:
    """Take rights away from this process; the names of the protections that this gives, of `MISSING`.

    The `settings` are those of `fork_server.main`, the `request` is that of `fork_server.ForkServer.start`. The
    process's own `folder` is made here, except within bubblewrap, where a process that `has_proc` sees /proc. The size
    of files is not bounded yet, see `limits.limit_files`. After an OSError nothing of a model's may run.
    """
    has_namespaces = settings["isolation"] == "bubblewrap"
    is_root = os.geteuid() == 0
    is_grader = request["role"] == "grader"  # it holds tests and runs no code of a model's
    uid = settings["uid"] + is_grader  # so that a program cannot signal it
    given: list[str] = []
    os.setsid()
    if has_namespaces:
        bubblewrap.private_folders(settings["paths"], with_proc=has_proc)
        given += ["hidden files", "contents of files", "processes of others", "signals", "disk", "leftovers"]
    else:
        os.mkdir(folder, 0o700)
        if is_root:
            with contextlib.suppress(OSError):  # a user namespace that maps one user
                os.chown(folder, uid, uid)
        os.chdir(folder)
    limits.limit(request["cpu"], request["memory_mb"], settings["processes"])
    processes.drop_privileges(uid)
    if has_namespaces or (is_root and os.geteuid() != 0):
        given.append("user")
    if settings["isolation"] == "landlock":
        writable = [folder, *bubblewrap.DEVICES, *(["/dev/shm"] if is_root else [])]
        readable = [*settings["paths"], os.path.join(settings["tmp"], PACKAGES), "/proc"]
        if landlock.restrict_files(readable, writable, [0] if keeps_stdin else []):
            given.append("signals")
        given += ["contents of files", "leftovers"]
    if seccomp.filter_calls(shared=not has_namespaces, own_kills_only="signals" not in given):
        given += ["network", "signals"]
    elif has_namespaces:
        given.append("network")
    processes.hide_memory(hidden=is_grader)
    if os.access(settings["library"], os.R_OK | os.X_OK):
        given.append("library")
    return given

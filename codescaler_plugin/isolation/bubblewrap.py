"""The command line of bubblewrap: new namespaces that hold nothing but the paths that an interpreter needs."""

import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from codescaler_plugin.isolation.mounts import DEVICES, FOLDERS, LINKS

_KEPT = ("SYS_ADMIN", "SETUID", "SETGID", "SETPCAP", "KILL")  # of a fork server's; programs lose them


def command(paths: Collection[str], covered: Collection[str], links: Mapping[str, str]) -> list[str]:
    """The words that go before a program's own.

    Args:
        paths: files and folders that are visible, read-only.
        covered: folders below them that are empty but for `paths` in them.
        links: further symbolic links, with where they lead.

    Raises:
        FileNotFoundError: bubblewrap is not installed.
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

"""The files that the sandbox's processes see: what an interpreter needs, this package's part, and named packages."""

import glob
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

from codescaler_plugin.errors import ConfigError

PACKAGE = Path(__file__).parents[1]
IMPORTED = ("__init__.py", "isolation", "grading", "execution")
"""The files and folders of this package that the processes import, here and on a service."""
_NIX = "/nix/store"


@cache
def visible() -> tuple[list[str], dict[str, str]]:
    """The interpreter's own files and folders, the standard library and shared libraries; and symbolic links."""
    paths = {
        os.path.realpath(sys.executable),
        *(str(PACKAGE / name) for name in IMPORTED),
        "/usr/lib64",
        "/usr/share/zoneinfo",
        "/etc/ld.so.cache",
    }
    paths |= {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), _NIX}
    libraries = {"/lib", "/lib64", "/usr/lib", sysconfig.get_config_var("LIBDIR") or "/usr/lib"}
    for folder in {os.path.realpath(folder) for folder in libraries}:
        own = [os.path.join(folder, name) for name in (sysconfig.get_config_var("MULTIARCH"), "locale") if name]
        paths |= set(own) if os.path.isdir(own[0]) and folder == "/usr/lib" else {folder}  # else all kinds of things
    links = {path: os.readlink(path) for path in ("/lib", "/lib64", "/usr/lib64") if os.path.islink(path)}
    return sorted({os.path.realpath(path) for path in paths if os.path.exists(path)}), links


@cache
def covered() -> list[str]:
    """The folders of installed packages below what is visible."""
    folders = set(glob.glob(f"{_NIX}/*/lib/python*/site-packages"))
    for path in visible()[0]:
        for parent, names, _ in os.walk(path) if path != _NIX else ():
            for name in {"site-packages", "dist-packages"} & set(names):
                names.remove(name)
                folders.add(os.path.join(parent, name))
    return sorted(folders)


def package_paths(packages: Sequence[str]) -> dict[str, list[str]]:
    """The paths of each package, and of what it requires as far as it is installed, with all that came with them."""
    found = {}
    for name in packages:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or spec.origin is None:
            raise ConfigError(f"package {name!r} is not installed here, so no code can import it")
        paths = {os.path.realpath(path) for path in spec.submodule_search_locations or [spec.origin]}
        waiting, seen = list(metadata.packages_distributions().get(name, ())), set()
        while waiting:
            try:
                distribution = metadata.distribution(waiting.pop())
            except metadata.PackageNotFoundError:  # required, but only for an extra or another machine
                continue
            if distribution.name not in seen:
                seen.add(distribution.name)
                tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
                paths |= {os.path.realpath(str(distribution.locate_file(top))) for top in tops}
                waiting += [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in distribution.requires or ()]
        found[name] = sorted(path for path in paths if os.path.exists(path) and not path.endswith(".pth"))
    return found

"""One folder per host. Each translates judgements into the contract of its host and makes none itself.

A folder whose host loads a file by path declares in its `__init__` what it offers: `FILES`, a dict from the name that
`codescaler where` takes to the file in the folder and the text that a user types.
"""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules


def host_files() -> dict[str, tuple[Path, str]]:
    """The path and the usage of each file that a folder declares, by the name that `codescaler where` takes."""
    hosts = [import_module(f"{__name__}.{folder.name}") for folder in iter_modules(__path__) if folder.ispkg]
    return {
        name: (Path(host.__path__[0], file), usage)
        for host in hosts
        for name, (file, usage) in getattr(host, "FILES", {}).items()
    }

"""What OpenRLHF imports and a CPU cannot have: ray that runs everything at once, and modules that are only names.

Imported by `openrlhf_host.py` in a process of its own, never by the tests.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

NAMES = (
    *("ray", "vllm", "deepspeed", "flash_attn", "optimum", "torchdata", "torchmetrics", "wandb", "bitsandbytes"),
    *("einops", "pylatexenc", "optree", "loralib", "isort", "jsonlines", "flash_attn_2_cuda"),
)


class _Stub(ModuleType):
    """A module that has every name; each is a class of its own, so that it can be a base class or a decorator."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (MagicMock,), {"__init__": lambda self, *_, **__: MagicMock.__init__(self)})
        setattr(self, name, made)
        return made


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] not in NAMES:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> ModuleType:
        return _Stub(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == "ray":
            _fill_ray(module)
        if module.__name__ == "vllm":
            vars(module)["__version__"] = "0.29.0"


class _Remote:
    """`ray.remote(f).remote(...)`: at once, in this process. A class gives actors whose methods have `.remote`."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        made = self.target(*args, **kwargs)
        return _Actor(made) if isinstance(self.target, type) else made

    def options(self, **_: Any) -> "_Remote":
        return self


class _Actor:
    def __init__(self, instance: Any) -> None:
        self.instance = instance

    def __getattr__(self, name: str) -> Any:
        return _Remote(getattr(self.instance, name))


def _fill_ray(ray: Any) -> None:
    def remote(*args: Any, **_: Any) -> Any:
        return _Remote(args[0]) if args else _Remote

    ray.remote = remote
    ray.get = lambda reference, **_: reference
    ray.put = lambda value: value
    ray.is_initialized = lambda: True
    ray.ObjectRef = object
    ray.actor = importlib.import_module("ray.actor")  # some read it without an import


def install(real: tuple[str, ...] = ()) -> None:
    """Stub what is not there. A module that can be had for real is left alone: ray, vllm and deepspeed if in `real`."""
    always = {"ray", "vllm", "deepspeed"}.difference(real)
    globals()["NAMES"] = tuple(name for name in NAMES if name in always or not importlib.util.find_spec(name))
    sys.meta_path.insert(0, _Finder())

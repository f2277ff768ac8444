"""A faster forward pass of a row on a CPU, for the same scores.

Products of float32 go to oneDNN on AMD's processors with AVX-512, which torch's choice, MKL, leaves unused there. The
MLPs see the row in chunks, whose intermediate values stay in the cache and in memory that the process already has;
that of the last layer sees only the tokens that are read. None of it holds outside; other devices see none of it.
"""

import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

CHUNK = 512
"""Tokens that an MLP or a product by oneDNN sees at once."""
_LEAST = 2**24  # multiplications of a product; a smaller one is faster by torch
_MULTIPLE = 64
_SIZE = 512  # of the comparison


@contextmanager
def faster(model: Any, read: Sequence[int]) -> Iterator[None]:
    """Inside, a row's forward pass is faster, without gradients. Not for two threads at once.

    Args:
        model: a decoder that shares prefixes (`families.SHARED`).
        read: places in the row whose last hidden state is read; that of others is meaningless inside.
    """
    if model.device.type != "cpu":
        yield
        return
    with ExitStack() as stack:
        if not torch.is_autocast_enabled("cpu") and takes_onednn():
            stack.enter_context(_ProductsByOneDnn())
        for mlp, is_last in mlps(model):
            stack.callback(vars(mlp).pop, "forward", None)
            mlp.forward = _only(mlp.forward, read) if is_last else _in_chunks(mlp.forward)
        yield


def mlps(model: Any) -> list[tuple[Any, bool]]:
    """The MLPs that `faster` changes, and whether it is the last layer's.

    Not experts, which are the slower the fewer tokens they see, nor what layers share or others have changed.
    """
    found = [getattr(layer, "mlp", None) for layer in getattr(model.base_model, "layers", ())]
    times = Counter(map(id, found))
    return [
        (mlp, place == len(found) - 1)
        for place, mlp in enumerate(found)
        if isinstance(getattr(mlp, "down_proj", None), torch.nn.Linear)
        and "forward" not in vars(mlp)
        and times[id(mlp)] == 1
    ]


def _in_chunks(forward: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """For hidden states [1, tokens, hidden], each on its own."""
    return lambda hidden: torch.cat([forward(chunk) for chunk in hidden.split(CHUNK, dim=1)], dim=1)


def _only(forward: Callable[[Any], Any], read: Sequence[int]) -> Callable[[Any], Any]:
    """Zeros but for the tokens that are read."""

    def of(hidden: Any) -> Any:
        places = torch.tensor(read, device=hidden.device)
        return torch.zeros_like(hidden).index_copy_(1, places, forward(hidden[:, places]))

    return of


@cache
def takes_onednn() -> bool:
    """Whether products go to torch's operator for oneDNN: on AMD's processors with AVX-512.

    By the kind of processor and not by a timing, so that scores are the same to the last bit each time. The operator
    is internal to torch (2.1 to 2.13), so it is compared with torch's own product first.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or "AuthenticAMD" not in processor():
        return False
    generator = torch.Generator("cpu").manual_seed(0)
    one, other = torch.randn(2, _SIZE, _SIZE, generator=generator, device="cpu", dtype=torch.float32)
    try:
        with torch.inference_mode():
            torch.testing.assert_close(
                by_onednn(one, other), torch.nn.functional.linear(one, other), rtol=1e-4, atol=1e-4
            )
    except (AttributeError, RuntimeError, TypeError, AssertionError):
        return False
    return True


def processor() -> str:
    """What the system tells of it: on Linux its maker among others, on Windows that alone, else little."""
    info = Path("/proc/cpuinfo")
    return info.read_text(encoding="utf-8", errors="replace") if info.exists() else platform.processor()


def by_onednn(one: Any, weight: Any, bias: Any = None) -> Any:
    """`torch.nn.functional.linear`, without gradients; a weight that is not contiguous takes seconds.

    oneDNN keeps what it prepares for each number of rows; so it gets few: chunks, and a padded rest.
    """

    def product(rows: Any) -> Any:
        missing = -len(rows) % _MULTIPLE
        padded = torch.nn.functional.pad(rows, (0, 0, 0, missing)) if missing else rows
        return torch.ops.mkldnn._linear_pointwise(padded, weight, bias, "none", [], "")[: len(rows)]

    chunks = [product(rows) for rows in one.reshape(-1, one.shape[-1]).split(CHUNK)]
    return (torch.cat(chunks) if len(chunks) > 1 else chunks[0]).view(*one.shape[:-1], -1)


def _fits(one: Any, weight: Any, bias: Any = None) -> bool:
    """Quantised weights, say, have a type of their own."""
    given = [one, weight] if bias is None else [one, weight, bias]
    return (
        all(type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.dtype is torch.float32 for tensor in given)
        and one.numel() * len(weight) >= _LEAST
        and weight.is_contiguous()
        and torch.is_inference_mode_enabled()
    )


class _ProductsByOneDnn(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.linear and set(kwargs) <= {"bias"} and _fits(*args, **kwargs):
            return by_onednn(*args, **kwargs)
        return func(*args, **kwargs)

"""A faster forward pass of a row on a CPU, with the same scores.

On AMD processors with AVX-512, float32 products go to oneDNN; torch's choice, MKL, does not use AVX-512 there. The
MLPs compute the row in chunks, so that intermediate values stay in the cache and in memory that the process already
has. The MLP of the last layer computes only the tokens that are read. Nothing of this lasts beyond the pass.
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

from codescaler_plugin.scoring.compat import onednn_linear

CHUNK = 512
"""Tokens that an MLP or a oneDNN product computes at once."""
_LEAST = 2**24  # multiplications of a product; torch is faster for smaller ones
_MULTIPLE = 64
_SIZE = 512  # rows and columns of the comparison


@contextmanager
def faster(model: Any, read: Sequence[int]) -> Iterator[None]:
    """Inside, a row's forward pass is faster and has no gradients. Only for one thread at a time.

    `read` are the indices of the tokens whose last hidden state is read; that of other tokens is meaningless.
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
    """Return the MLPs that `faster` changes, each with True if it is the last layer's.

    Leaves out experts, which are slower with fewer tokens, and MLPs that layers share or other code has patched.
    """
    by_layer = [getattr(layer, "mlp", None) for layer in getattr(model.base_model, "layers", ())]
    uses = Counter(map(id, by_layer))
    return [
        (mlp, layer == len(by_layer) - 1)
        for layer, mlp in enumerate(by_layer)
        if isinstance(getattr(mlp, "down_proj", None), torch.nn.Linear)
        and "forward" not in vars(mlp)
        and uses[id(mlp)] == 1
    ]


def _in_chunks(forward: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same for hidden states [1, tokens, hidden], one chunk at a time."""
    return lambda hidden: torch.cat([forward(chunk) for chunk in hidden.split(CHUNK, dim=1)], dim=1)


def _only(forward: Callable[[Any], Any], read: Sequence[int]) -> Callable[[Any], Any]:
    """The same for the tokens that are read, and zeros for the others."""

    def read_only(hidden: Any) -> Any:
        indices = torch.tensor(read, device=hidden.device)
        return torch.zeros_like(hidden).index_copy_(1, indices, forward(hidden[:, indices]))

    return read_only


@cache
def takes_onednn() -> bool:
    """Return True on AMD processors with AVX-512, if oneDNN's product equals torch's.

    The type of processor decides rather than a timing, so that scores repeat to the last bit.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or "AuthenticAMD" not in processor():
        return False
    generator = torch.Generator("cpu").manual_seed(0)
    rows, weight = torch.randn(2, _SIZE, _SIZE, generator=generator, device="cpu", dtype=torch.float32)
    try:
        with torch.inference_mode():
            expected = torch.nn.functional.linear(rows, weight)
            torch.testing.assert_close(by_onednn(rows, weight), expected, rtol=1e-4, atol=1e-4)
    except (AttributeError, RuntimeError, TypeError, AssertionError):
        return False
    return True


def processor() -> str:
    """The system's description of the processor: with its vendor on Linux and Windows, little elsewhere."""
    info = Path("/proc/cpuinfo")
    return info.read_text(encoding="utf-8", errors="replace") if info.exists() else platform.processor()


def by_onednn(hidden: Any, weight: Any, bias: Any = None) -> Any:
    """`torch.nn.functional.linear` by oneDNN, without gradients. A weight that is not contiguous takes seconds.

    oneDNN caches a plan for each number of rows. It gets few such numbers: whole chunks, and a padded rest.
    """

    def product(rows: Any) -> Any:
        missing = -len(rows) % _MULTIPLE
        padded = torch.nn.functional.pad(rows, (0, 0, 0, missing)) if missing else rows
        return onednn_linear(padded, weight, bias)[: len(rows)]

    chunks = [product(rows) for rows in hidden.reshape(-1, hidden.shape[-1]).split(CHUNK)]
    return (torch.cat(chunks) if len(chunks) > 1 else chunks[0]).view(*hidden.shape[:-1], -1)


def _fits(hidden: Any, weight: Any, bias: Any = None) -> bool:
    tensors = [hidden, weight] if bias is None else [hidden, weight, bias]
    plain = (torch.Tensor, torch.nn.Parameter)  # quantised weights, for one, have a type of their own
    return (
        all(type(tensor) in plain and tensor.dtype is torch.float32 for tensor in tensors)
        and hidden.numel() * len(weight) >= _LEAST
        and weight.is_contiguous()
        and torch.is_inference_mode_enabled()
    )


class _ProductsByOneDnn(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.linear and set(kwargs) <= {"bias"} and _fits(*args, **kwargs):
            return by_onednn(*args, **kwargs)
        return func(*args, **kwargs)

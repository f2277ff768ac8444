"""A cache of known scores: recent ones in memory, over an optional file that processes share.

A key stands for the content: the model and the token ids that it read. Scores repeat up to rounding: 1e-5 in float32;
about 1e-2 in bf16, where it depends on the batch. Only finite scores are kept.
"""

import logging
import os
import struct
from array import array
from functools import cache
from hashlib import sha256
from mmap import PAGESIZE
from pathlib import Path
from typing import Any

from cachetools import LRUCache

from codescaler_plugin.data.outputs import NO_ROOM
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.extras import require

logger = logging.getLogger(__name__)

CACHE_SIZE = 16_384
"""Default number of scores in memory: 5 MB."""
DISK_BYTES = 1 << 30
"""Largest size of the file in bytes, about eight million scores. A full file keeps its scores and takes no more."""

_LOCK_BYTES = 8192  # of 126 readers, LMDB's default


class ScoreCache:
    """Scores by content: the `size` most recently used, and those in the LMDB file of a `folder`.

    The processes of one machine may share the folder, but not on a network file system. A full disk only logs a
    warning: scores stay in memory.

    Raises:
        ConfigError: the folder cannot be created or opened, or lmdb is not installed.
    """

    def __init__(self, size: int, folder: str | None = None) -> None:
        self._recent: LRUCache[bytes, float] = LRUCache(size)
        self._folder = None if folder is None else str(Path(folder).expanduser().resolve())
        self._failed = False
        if self._folder is not None:
            try:
                _opened(self._folder, os.getpid())
            except ConfigError as error:
                if not _is_full(error.__cause__):
                    raise
                logger.warning("no score is kept on disk: %s", error)
                data = Path(self._folder, "data.mdb")
                if data.exists() and data.stat().st_size < 2 * PAGESIZE:  # half a header: no later start could read it
                    data.unlink()
                self._folder = None

    def get(self, key: bytes) -> float | None:
        """Return the score of a key; None if it is unknown or the file cannot be read."""
        score = self._recent.get(key)
        if score is not None or self._folder is None:
            return score
        import lmdb

        try:
            with _opened(self._folder, os.getpid()).begin() as transaction:
                packed: bytes | None = transaction.get(key)
        except lmdb.Error as error:
            if not self._failed:
                logger.warning(
                    "the score cache in %s cannot be read (%s): its scores are computed again", self._folder, error
                )
            self._failed = True
            return None
        if packed is not None:
            (score,) = struct.unpack("<d", packed)
            self._keep(key, score)
        return score

    def put(self, scores: dict[bytes, float]) -> None:
        """Store scores. A file that is full or fails is reported once, and then only read."""
        for key, score in scores.items():
            self._keep(key, score)
        if self._folder is None or self._failed or not scores:
            return
        import lmdb

        try:
            with _opened(self._folder, os.getpid()).begin(write=True) as transaction:
                for key, score in scores.items():
                    transaction.put(key, struct.pack("<d", score))
        except lmdb.MapFullError:
            self._failed = True
            logger.warning("the score cache in %s is full (%d bytes): no score is added", self._folder, DISK_BYTES)
        except lmdb.Error as error:  # usually a full disk
            self._failed = True
            logger.warning("the score cache in %s fails (%s): no score is added", self._folder, error)

    def clear(self) -> None:
        """Drop the scores in memory. The file stays."""
        self._recent.clear()

    def _keep(self, key: bytes, score: float) -> None:
        if self._recent.maxsize >= 1:
            self._recent[key] = score


def content_key(fingerprint: bytes, ids: list[int]) -> bytes:
    """Return 32 bytes for a model (`fingerprint`) and the token ids that it reads."""
    return sha256(fingerprint + array("q", ids).tobytes()).digest()


def fingerprint(model: Any, template: str) -> bytes:
    """Return 32 bytes for a model's weights, dtype and settings, whatever its name, and a chat template."""
    import torch

    digest = sha256(template.encode())
    digest.update(model.config.to_json_string(use_diff=True).encode())
    bits = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        words = tensor.detach().contiguous().view(bits[tensor.element_size()])
        # Sums along each axis: computed on the device of the weights, and changed if rows, columns or signs swap.
        for axis in range(words.dim()) if words.dim() > 1 else ():
            digest.update(words.sum(axis, dtype=torch.int64).cpu().numpy().tobytes())
        if words.dim() < 2:
            digest.update(words.cpu().numpy().tobytes())
    return digest.digest()


def _reserve(lock: Path) -> None:
    """Allocate LMDB's lock file. LMDB maps it, and a hole in it on a full disk would end the process by SIGBUS."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, _LOCK_BYTES)
    finally:
        os.close(descriptor)


def _is_full(error: BaseException | None) -> bool:
    import lmdb

    return isinstance(error, lmdb.DiskError) or (isinstance(error, OSError) and error.errno in NO_ROOM)


@cache
def _opened(folder: str, pid: int) -> Any:  # noqa: ARG001 - an environment must not cross a fork
    require("a score cache on disk (cache_dir)", "cache", "lmdb")
    import lmdb

    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _reserve(Path(folder, "lock.mdb"))
        return lmdb.open(folder, map_size=DISK_BYTES)
    except (OSError, lmdb.Error) as error:
        raise ConfigError(f"cache_dir {folder} cannot be opened: {error}; give a folder that is yours") from error

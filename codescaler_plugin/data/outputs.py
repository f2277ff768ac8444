"""Output files: checked before the work, never equal to an input, and replaced only when they are complete."""

import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from codescaler_plugin.errors import ConfigError

Input = str | Path | IO[Any]  # of a command: a path, a hub id, or an open file such as stdin
Claim = Callable[[Any], str]  # called with a row of an earlier run; says why it is not of this run, or ''

MAX_LINE = 256 << 20  # bytes of a line in a file that a run resumes
CUT = "take it out with all behind it, and the run goes on from there"
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # errors of a full disk


def check_output(path: Path, inputs: Sequence[Input] = ()) -> None:
    """Check that `path` can be written, before the work is done.

    The check creates and removes a temporary file beside `path` and leaves `path` as it is. It cannot tell whether the
    disk has enough room. A file in an input folder counts as an input, because the next run would read it.

    Raises:
        ConfigError: the folder does not exist or cannot be written, `path` is a folder or a device, or it is an input.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: no folder {path.parent}; make it first")
    try:
        path.resolve()
    except (OSError, RuntimeError) as error:  # a link that leads to itself
        raise ConfigError(f"cannot write {path}: {error}") from error
    if any(_is_input(path, source) for source in inputs):
        raise ConfigError(f"{path} is read and would be written over: give another output")
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise ConfigError(f"cannot write {path}: it is {kind}; give the path of a file")
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
        if path.exists():
            path.open("ab").close()
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def check_own(path: Path, mark: str) -> None:
    """Check that a file under a name that this package chose is its own, so that no file of the user is lost."""
    if path.exists() and mark not in path.read_text(encoding="utf-8", errors="replace"):
        raise ConfigError(f"{path} is not one of ours and would be written over: give another place")


def check_folder(folder: Path) -> None:
    """Create `folder` if it does not exist, and check that files can be written into it."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"cannot write into {folder}: it is a file; give a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write into {folder}: {error.strerror}; give another output") from error


@contextmanager
def write_output(
    path: Path, inputs: Sequence[Input] = (), *, binary: bool = False, keep_part: bool = False
) -> Iterator[IO[Any]]:
    """Open a file that replaces `path` when the block ends without an error. Until then `path` does not change.

    The file is written beside `path` as `<path>.<letters>.part`. If two processes write the same path, the last one to
    finish wins with its complete file. A symbolic link stays a link. When the block fails, the part file is removed;
    with `keep_part` it is kept, and a note on the error names it.

    Raises:
        ConfigError: see `check_output`; or the disk is full.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with write_output(Path(folder, "judged.jsonl")) as file:
        ...         print("{}", file=file)
        ...     os.listdir(folder)
        ['judged.jsonl']
    """
    check_output(path, inputs)
    target = path.resolve()
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        file: IO[Any] = part.open("xb") if binary else part.open("x", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield file
        file.close()
        if target.exists():
            shutil.copymode(target, part)
        part.replace(target)
    except BaseException as error:  # after Ctrl-C, too, the part file is removed or named
        with suppress(OSError):  # the rest of the buffer may not fit either
            file.close()
        raised: BaseException = error
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raised = ConfigError(f"cannot write {path}: {error.strerror}")
        if keep_part and part.stat().st_size:
            raised.add_note(f"What was written so far is in {part}")
        else:
            part.unlink(missing_ok=True)
        if raised is error:
            raise
        raise raised from error


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a folder, so that one process at a time writes into it. The folder is created if it does not exist."""
    check_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor, folder, "folder")
        yield
    finally:
        os.close(descriptor)


@contextmanager
def open_resumable(
    path: Path,
    claim: Claim | None = None,
    *,
    companion: Path | None = None,
    made_with: Mapping[str, Any] | None = None,
) -> Iterator[BinaryIO]:
    r"""Open a file of JSON lines to append to, locked against other processes.

    The rows of an earlier run are read first, if there is a `claim`. A torn last line is removed. A file of another
    run is not changed. `companion` is a JSON file with `made_with`, the settings of the run. It is written if `path`
    is new. Without it the rows alone tell whether they are of the same run.

    Raises:
        ConfigError: `path` is not a regular file, cannot be written, or is locked; it was made with other settings,
            has no companion, or holds a row that `claim` refuses; or the disk is full.
    """
    try:  # not blocking: a pipe that nobody reads would hold the open
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(f"cannot write {path}: it is no regular file; give the path of a file")
    file: BinaryIO = os.fdopen(descriptor, "ab+")
    try:
        _lock(file.fileno(), path, "output")
        if companion is not None:
            _check_companion(path, companion, made_with or {})
        if claim is not None:
            _read_back(file, path, claim, is_own=companion is not None)
        yield file
        file.close()
    except OSError as error:
        if error.errno in NO_ROOM:
            raise ConfigError(f"cannot write {path}: {error.strerror}; the same command goes on from here") from error
        raise
    finally:
        with suppress(OSError):  # the rest of the buffer may not fit either
            file.close()


def _check_companion(path: Path, companion: Path, made_with: Mapping[str, Any]) -> None:
    """Check that this run made `path`. Beside a new file, write the settings."""
    if not companion.exists():
        if path.stat().st_size:
            raise ConfigError(f"{path} exists, and no {companion.name} beside it: give another output")
        write_text(companion, json.dumps(made_with, indent=2) + "\n")
        return
    before = None
    with suppress(ValueError, RecursionError):
        before = json.loads(companion.read_text(encoding="utf-8")) if companion.is_file() else None
    if not isinstance(before, dict):
        raise ConfigError(f"{companion} cannot be read: delete it and {path}")
    for name in {**made_with, **before}:
        if before.get(name) != made_with.get(name):
            version = " (by another version of this package)" if name == "form" else ""
            raise ConfigError(
                f"{path} was made with other {name}: {_shown(before.get(name))} then, "
                f"{_shown(made_with.get(name))} now{version}. Give another output, or delete it to start anew"
            )


def _shown(value: Any) -> str:
    return repr(value[:12] + "...") if isinstance(value, str) and len(value) > 40 else repr(value)


def _read_back(file: BinaryIO, path: Path, claim: Claim, *, is_own: bool) -> None:
    """Call `claim` with the rows of an earlier run, remove a torn line, and seek to the end."""
    size = 0
    for index, line in enumerate(whole_lines(file, path)):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"row {index} of {path} is no JSON: {CUT}") from error
        if refusal := claim(row):
            raise ConfigError(f"row {index} of {path} {refusal}")
        size += len(line)
    if not size and not is_own and file.seek(0, os.SEEK_END):
        raise ConfigError(f"{path} holds no whole line of an earlier run: give another output, or delete it")
    file.truncate(size)
    file.seek(0, os.SEEK_END)


def _lock(descriptor: int, path: Path, noun: str) -> None:
    """Lock an open file or folder. Closing it releases the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"{path} is being written by another process: wait for it, or give another {noun}") from None


def whole_lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines of an earlier run from the start, without a torn last line."""
    file.seek(0)
    number = 1
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise ConfigError(
                f"line {number} of {path} is longer than {MAX_LINE >> 20} MiB, which no run wrote: give another output"
            )
        if not line.endswith(b"\n"):
            return
        yield line
        number += 1


def write_text(path: Path, text: str) -> None:
    """Write a text file completely, or leave the old file."""
    with write_output(path) as file:
        file.write(text)


def _is_input(path: Path, source: Input) -> bool:
    if not isinstance(source, str | Path):
        try:
            return path.exists() and os.path.samestat(path.stat(), os.fstat(source.fileno()))
        except (OSError, ValueError, AttributeError):  # a stream without a descriptor, as in tests
            return False
    other = Path(source)
    if not other.exists():  # a hub id
        return False
    if other.is_dir():
        links = path.exists() and any(file.samefile(path) for file in other.iterdir() if file.is_file())
        return links or path.resolve().parent == other.resolve()
    return path.resolve() == other.resolve() or (path.exists() and path.samefile(other))

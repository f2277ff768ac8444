"""Output files: checked before the work, never an input, and in place only when they are whole."""

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

Input = str | Path | IO[Any]
"""What a command reads: a path, a hub id (which names no file here), or an open file such as stdin."""

MAX_LINE = 256 << 20
"""Bytes of a line of a file that a run goes on with."""

CUT = "take it out with all behind it, and the run goes on from there"
"""What to do about a row that is damaged."""

Claim = Callable[[Any], str]
"""Takes in a row of an earlier run; returns why the row is not of this run, as the end of a sentence, or nothing."""

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a full disk."""


def check_output(path: Path, inputs: Sequence[Input] = ()) -> None:
    """Raise what would keep `path` from being written, before the work is done.

    The check makes and removes a temporary file beside `path`. It does not touch `path` itself, and it cannot promise
    room on the disk.

    Args:
        path: file to be written. It may exist.
        inputs: what is read meanwhile. Writing a file into a folder that is read counts as writing an input: the next
            run would read it.

    Raises:
        ConfigError: the folder does not exist or cannot be written, `path` is a folder or a device, or it is an input.

    Example:
        >>> check_output(Path("judged.jsonl"), ["answers.jsonl"])
    """
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: no folder {path.parent}; make it first")
    try:
        path.resolve()
    except (OSError, RuntimeError) as error:  # a link that leads to itself
        raise ConfigError(f"cannot write {path}: {error}") from error
    if any(_is_input(path, one) for one in inputs):
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
    """Raise where a file of the user's would be written over: one under a name that we chose, without our mark.

    Raises:
        ConfigError: `path` exists and does not hold the mark, or cannot be read.
    """
    if path.exists() and mark not in path.read_text(encoding="utf-8", errors="replace"):
        raise ConfigError(f"{path} is not one of ours and would be written over: give another place")


def check_folder(folder: Path) -> None:
    """Make `folder` if it does not exist, and raise what would keep files from being written into it.

    Raises:
        ConfigError: `folder` is a file, or cannot be made or written.
    """
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
    """A file that takes the place of `path` when the block ends without an error; until then `path` is as it was.

    It is written beside `path` under a name of its own, `<path>.<letters>.part`, so that no other file is touched. Of
    two writers of one path the last to end wins, whole. A symbolic link stays one.

    Args:
        path: see `check_output`.
        inputs: see `check_output`.
        binary: open for bytes; else for UTF-8 text.
        keep_part: keep what was written when the block fails, and name it in a note on the error. Default: remove it.

    Raises:
        ConfigError: see `check_output`; or the disk is full.

    Example:
        >>> with write_output(Path("judged.jsonl"), ["answers.jsonl"]) as file:
        ...     print("{}", file=file)
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
    except BaseException as error:  # Ctrl-C too must leave no part file behind, or name it
        with suppress(OSError):  # what the buffer held may not fit either
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
    """A folder that one run at a time writes into; it is made if it does not exist.

    Raises:
        ConfigError: see `check_folder`; or another process writes into it.
    """
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
    r"""A file of JSON lines that a run appends to, locked against other runs.

    The rows of an earlier run are read back first. A last line without an end, which a kill has torn, is cut off. A
    file that is not of the same run is left as it is.

    Args:
        path: file to append to. It is made if it does not exist.
        claim: called with each row of an earlier run. None: no row is read back.
        companion: JSON file that says what `path` was made with. It is written if `path` is new. None: the rows alone
            say whether they are of the same run.
        made_with: what this run is made with, as JSON's types.

    Raises:
        ConfigError: `path` is no regular file, cannot be written, or another process writes it; it was made with
            something else, has no companion, or holds a row that is not claimed; or the disk is full.

    Example:
        >>> with open_resumable(Path("rows.jsonl"), lambda row: "" if "id" in row else "has no id") as file:
        ...     file.write(b'{"id": 1}\n')
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
        with suppress(OSError):  # what the buffer held may not fit either
            file.close()


def _check_companion(path: Path, companion: Path, made_with: Mapping[str, Any]) -> None:
    """Raise where another run has made `path`; of a new one, note what it is made with."""
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
    """Give the rows of an earlier run to `claim`, cut off a torn line, and leave the file at its end."""
    whole = 0
    for number, line in enumerate(whole_lines(file, path)):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"row {number} of {path} is no JSON: {CUT}") from error
        if refused := claim(row):
            raise ConfigError(f"row {number} of {path} {refused}")
        whole += len(line)
    if not whole and not is_own and file.seek(0, os.SEEK_END):
        raise ConfigError(f"{path} holds no whole line of an earlier run: give another output, or delete it")
    file.truncate(whole)
    file.seek(0, os.SEEK_END)


def _lock(descriptor: int, path: Path, what: str) -> None:
    """Take the lock on an open file or folder; closing it gives the lock back."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"{path} is being written by another process: wait for it, or give another {what}") from None


def whole_lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines of an earlier run, from the start; a last one without an end, which a kill has torn, is left out.

    Raises:
        ConfigError: a line of more than `MAX_LINE` bytes.
    """
    file.seek(0)
    number = 0
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise ConfigError(
                f"line {number + 1} of {path} is longer than {MAX_LINE >> 20} MiB, which no run wrote: give another "
                "output"
            )
        if not line.endswith(b"\n"):
            return
        yield line
        number += 1


def write_text(path: Path, text: str) -> None:
    """Write a whole text file, or leave what was there.

    Raises:
        ConfigError: see `write_output`.
    """
    with write_output(path) as file:
        file.write(text)


def _is_input(path: Path, given: Input) -> bool:
    if not isinstance(given, str | Path):
        try:
            return path.exists() and os.path.samestat(path.stat(), os.fstat(given.fileno()))
        except (OSError, ValueError, AttributeError):  # a stream without a descriptor, as in tests
            return False
    source = Path(given)
    if not source.exists():  # a hub id
        return False
    if source.is_dir():
        return path.resolve().parent == source.resolve()
    return path.resolve() == source.resolve() or (path.exists() and path.samefile(source))

"""Completions and scores that many tests use."""

from zlib import crc32


def fenced(code: str) -> str:
    """A completion with the code in one block."""
    return f"Here it is.\n\n```python\n{code}\n```\n"


def hashed(problem: str, code: str) -> float:
    """A number in [0, 1) that repeats and follows nothing."""
    return crc32(f"{problem}\0{code}".encode()) / 2**32

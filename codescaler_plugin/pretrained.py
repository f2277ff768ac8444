"""Loads models, tokenizers and configs of transformers by name, each with one clear error."""

import os
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.safety import one_line

_ANY = "Give a directory with all files of a model, or a hub id that can be reached."


def pretrained(
    kind: Any,
    name: str | Path,
    named: str = "",
    *,
    advice: str = "",
    trust_remote_code: bool | None = None,
    **settings: Any,
) -> Any:
    """Load a model, tokenizer or config by a directory or hub id. Only here does the package load from transformers.

    Always passes `trust_remote_code`: without it, transformers asks on stdin, where data may come from, whether the
    folder's code may run. None: it never may, and the error names no setting for it. `named` and `advice` are the name
    and the next step in errors.

    Raises:
        ConfigError: the files are missing, broken, of an unknown kind, or bring code that is not trusted.
    """
    named = named or f"model {str(name)!r}"
    try:
        loaded = kind.from_pretrained(name, trust_remote_code=bool(trust_remote_code), **settings)
        if getattr(loaded, "chat_template", None):  # a template may be broken, too; later errors would name no folder
            loaded.apply_chat_template([{"role": "user", "content": "problem"}], tokenize=False)
        return loaded
    except MemoryError:
        raise
    except Exception as error:  # broken files raise anything, from a bare Exception to a TypeError
        text = str(error).strip()
        if not trust_remote_code and "trust_remote_code" in text:  # advice that names an argument of transformers
            refused = f"{named} brings code of its own, which is not run "
            if trust_remote_code is None:
                raise ConfigError(f"{refused}here: give a model that transformers know") from error
            raise ConfigError(
                f"{refused}unless you say so. Read that code; if you trust it to run in this process, set "
                "trust_remote_code=True (CODESCALER_TRUST_REMOTE_CODE=1)"
            ) from error
        reason = one_line(text, 300) or type(error).__name__
        if isinstance(error, LookupError | TypeError | AttributeError | ArithmeticError | JSONDecodeError):
            reason = f"its files are broken ({type(error).__name__}: {reason})"
        if "ignore_mismatched_sizes" in text:  # the same
            reason = "its weights do not have the sizes that its config.json says"
        if Path(name).is_dir():  # the hub was not asked
            raise ConfigError(
                f"{named} cannot be loaded: {reason}\nSave or copy the whole model again. {advice or _ANY}"
            ) from error
        offline = "HF_HUB_OFFLINE is set, so the hub is not asked. " if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
        raise ConfigError(f"{named} cannot be loaded: {reason}\n{offline}{advice or _ANY}") from error

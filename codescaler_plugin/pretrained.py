"""What transformers load by name: models, tokenizers, configurations, each with one clear error."""

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
    """What `kind.from_pretrained` makes of a folder or hub id; all that is loaded by transformers is loaded here.

    `trust_remote_code` is always given: without it transformers ask on stdin, where data may come from, whether the
    folder's code may run.

    Args:
        kind: a class of transformers, such as `AutoTokenizer`.
        name: a directory or a hub id.
        named: what it is called in a message; empty: `model 'NAME'`.
        advice: the next step.
        trust_remote_code: run code that the folder brings, in this process, with all that it may do here. None: it is
            never run, and no setting changes that.
        settings: of `from_pretrained`.

    Raises:
        ConfigError: it cannot be had or loaded: not there, broken, of an unknown kind, or of code that is not trusted.
    """
    named = named or f"model {str(name)!r}"
    try:
        loaded = kind.from_pretrained(name, trust_remote_code=bool(trust_remote_code), **settings)
        if getattr(loaded, "chat_template", None):  # a program too, and else first run where its error names no folder
            loaded.apply_chat_template([{"role": "user", "content": "problem"}], tokenize=False)
        return loaded
    except MemoryError:
        raise
    except Exception as error:  # broken files raise anything: tokenizers a bare Exception, configs a TypeError
        text = str(error).strip()
        if not trust_remote_code and "trust_remote_code" in text:  # it advises an argument of transformers
            if trust_remote_code is None:
                raise ConfigError(
                    f"{named} brings code of its own, which is not run here: give a model that transformers know"
                ) from error
            raise ConfigError(
                f"{named} brings code of its own, which is not run unless you say so. Read that code; "
                "if you trust it to run in this process, set trust_remote_code=True (CODESCALER_TRUST_REMOTE_CODE=1)"
            ) from error
        reason = one_line(text, 300) or type(error).__name__
        if isinstance(error, LookupError | TypeError | AttributeError | ArithmeticError | JSONDecodeError):
            reason = f"its files are broken ({type(error).__name__}: {reason})"
        if "ignore_mismatched_sizes" in text:  # it advises an argument of transformers
            reason = "its weights do not have the sizes that its config.json says"
        if Path(name).is_dir():  # the hub was not asked
            raise ConfigError(
                f"{named} cannot be loaded: {reason}\nSave or copy the whole model anew. {advice or _ANY}"
            ) from error
        offline = "HF_HUB_OFFLINE is set, so the hub is not asked. " if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
        raise ConfigError(f"{named} cannot be loaded: {reason}\n{offline}{advice or _ANY}") from error

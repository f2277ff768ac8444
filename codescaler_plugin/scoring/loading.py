"""Loads a reward model of transformers by name: checked, whole, and on the device of this process."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.scoring.compat import deepspeed_config

_ADVICE = (
    "Give a directory or a hub id that can be reached, or 'builtin' for the small embedded model, "
    "which needs no network."
)


def load_classifier(name: str, device: str | None = None, *, trust_remote_code: bool = False) -> tuple[Any, Any]:
    """Return a sequence classifier with one label, in evaluation mode, and its tokenizer.

    On a CPU the model is in float32, as bf16 products are many times slower there; else in the checkpoint's dtype.

    Raises:
        ConfigError: the model is not available, is an adapter or a checkpoint of OpenRLHF, needs code of its own and
            is not trusted, has no trained head with one label, or no fitting tokenizer with a chat template; or the
            device does not exist.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    name = _checked(name)
    _refuse_unsaved(Path(name))
    named = f"reward model {name!r}"
    load = partial(pretrained, name=name, named=named, advice=_ADVICE, trust_remote_code=trust_remote_code)
    config = load(AutoConfig)
    _refuse_openrlhf(name, config)
    if config.num_labels != 1:
        kind = ", ".join(config.architectures or ["a model of unknown kind"])
        raise ConfigError(
            f"{name} is {kind} with {config.num_labels} labels: a reward model is a sequence classifier with one"
        )
    tokenizer = load(AutoTokenizer)
    target = device_of(device)
    with _unsharded():
        dtype = torch.float32 if target.type == "cpu" else "auto"
        model, report = load(AutoModelForSequenceClassification, dtype=dtype, output_loading_info=True)
    if report["missing_keys"]:
        raise ConfigError(
            f"{name} is no trained reward model: it lacks {', '.join(sorted(report['missing_keys']))}. "
            "Train it with TRL's RewardTrainer first, or give another model."
        )
    _check_tokenizer(name, model, tokenizer)
    return model.to(target).eval(), tokenizer


def text_config(model: Any) -> Any:
    """Return the config of the text model: a part of the config for models that also read images, else all of it."""
    return model.config.get_text_config()


def _refuse_unsaved(folder: Path) -> None:
    """Refuse an adapter without its model, and a trainer's folder that has only checkpoints."""
    if not folder.is_dir() or (folder / "config.json").exists():
        return
    if (folder / "adapter_config.json").is_file():
        raise ConfigError(
            f"{folder} holds a PEFT adapter (adapter_config.json, no config.json): expected a whole model. Make one "
            f"of it with recipes/trl/reward_merge.py of this project's repository, or with peft's merge_and_unload"
        )
    if checkpoints := sorted(folder.glob("checkpoint-*/config.json"), key=lambda path: path.stat().st_mtime):
        newest = checkpoints[-1].parent
        raise ConfigError(
            f"{folder} holds {newest.name} and no model: give {newest}, or call trainer.save_model() after "
            "the training"
        )


def _refuse_openrlhf(name: str, config: Any) -> None:
    """Refuse what OpenRLHF's train_rm saves (0.11.2, `models/model.py`): it pools and normalises in its own way."""
    is_own = "AutoModelForSequenceClassification" in (getattr(config, "auto_map", None) or {})
    if config.architectures == ["RewardModel"] and not is_own:
        raise ConfigError(
            f"{name} is a RewardModel as OpenRLHF saves it: expected a sequence classifier of transformers. Make one "
            f"of it by: python recipes/openrlhf/load_rm.py {name} NEW_FOLDER (in this project's repository)"
        )


def checked_handle(model: Any, tokenizer: Any) -> Any:
    """Return a loaded classifier with one label; for a PEFT model, the classifier that holds the adapters.

    Raises:
        ConfigError: it is not one, or its tokenizer does not fit or has no chat template.
    """
    labels = getattr(getattr(model, "config", None), "num_labels", None)
    if labels != 1:
        raise ConfigError(
            f"{type(model).__name__} with {labels} labels: a reward model is a sequence classifier of transformers "
            "with one"
        )
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    _check_tokenizer(type(model).__name__, model, tokenizer)
    return model


def _check_tokenizer(name: str, model: Any, tokenizer: Any) -> None:
    if not tokenizer.chat_template:
        raise ConfigError(f"the tokenizer of {name} has no chat template: save one beside the model")
    if not tokenizer("code", add_special_tokens=False)["input_ids"]:
        raise ConfigError(f"{name} has no tokenizer files: save the model's tokenizer beside it")
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ConfigError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens for {rows} embeddings: they do not match"
        )


def _checked(name: str) -> str:
    """The name with `~` expanded. A missing path is refused here: transformers would look it up as a hub id."""
    path = Path(name).expanduser()
    looks_like_path = path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
    if looks_like_path and not path.is_dir():
        raise ConfigError(f"reward model directory {name} does not exist: give a directory, a hub id, or 'builtin'")
    return str(path) if looks_like_path else name


def device_of(device: str | None) -> Any:
    """Return the torch device of a name. None: that of `accelerate` if in use, else the current GPU, else the CPU.

    Raises:
        ConfigError: this machine has no such device.
    """
    import torch

    if device is not None:
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:  # the latter where torch is built without CUDA
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"device {device!r} cannot be used here: {reason}; give cpu, cuda or cuda:N as this machine has, "
                "or leave it out"
            ) from error
    if "accelerate" in sys.modules:
        from accelerate import PartialState
        from accelerate.state import is_initialized

        if is_initialized():
            return PartialState().device
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


@contextmanager
def _unsharded() -> Iterator[None]:
    """Inside, models load whole in every process, even if the policy's trainer has configured ZeRO-3."""
    from transformers.integrations import deepspeed

    config = deepspeed_config()
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if config is not None:
            deepspeed.set_hf_deepspeed_config(config)

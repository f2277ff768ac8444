"""All uses of private parts of TRL, transformers and accelerate.

Seen in TRL 1.9.0 to 1.16.0, transformers 4.56.2 to 5.24.0 and accelerate 1.15.0. If a later release changes one,
`tests/integrations/trl/test_compat.py` fails with a sentence that names the release and the change.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_STOCK_ABOUT = re.compile(
    r"This model is a fine-tuned version of .*?(?=^## Training procedure)", re.DOTALL | re.MULTILINE
)


class RewardTrainerHooks:
    """Mixin that gives private hooks of `RewardTrainer` public names.

    It relies on `_prepare_dataset`, which `__init__` calls when the tokenizer is ready (for the training set as
    `train`, for evaluation sets by key or as `eval`) and `evaluate` for a new set; on `_metrics`, whose lists `log`
    averages and clears; and on `_tag_names`, `_name` and `_paper`, which the model card prints.
    """

    _tag_names = ("trl", "reward-trainer", "codescaler")
    _name = "CodeScaler"
    _title = "CodeScaler: Scaling Code LLM Training and Test-Time Inference via Execution-Free Reward Models"
    _paper = {  # noqa: RUF012 - the host's form
        "title": _title,
        "id": "2602.17684",
        "citation": "@article{codescaler2026,\n"
        f"    title  = {{{{{_title}}}}},\n"
        "    year   = 2026,\n"
        "    eprint = {arXiv:2602.17684},\n"
        "}",
    }
    _metrics: dict[str, dict[str, list[float]]]
    model: Any

    def prepare_pairs(self, dataset: Any, tokenizer: Any, args: Any, name: str) -> Any:
        """A dataset as token ids."""
        raise NotImplementedError

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        return self.prepare_pairs(dataset, processing_class, args, dataset_name)

    @property
    def pending_metrics(self) -> dict[str, list[float]]:
        """The numbers per metric since the last log, of training or evaluation by the mode of the model."""
        return self._metrics["train" if self.model.training else "eval"]


def replace_about(card: str, about: str) -> str:
    """A model card with `about` for TRL's description and example, by the headings of TRL's `rm_model_card.md`."""
    return _STOCK_ABOUT.sub(lambda _: about, card)


@contextmanager
def gathers_unequal(accelerator: Any) -> Iterator[None]:
    """Inside, `accelerator.gather` takes tensors whose numbers of rows differ between processes.

    Relies on `RewardTrainer.compute_loss`, which gathers the logits of a batch by `self.accelerator.gather`.
    """
    if accelerator.num_processes == 1:
        yield
        return
    import torch

    stock: Callable[[Any], Any] = accelerator.gather

    def gather(tensor: Any) -> Any:
        if tensor.ndim == 0:
            return stock(tensor)
        sizes = stock(torch.tensor([len(tensor)], device=tensor.device)).tolist()
        missing = tensor.new_zeros(max(sizes) - len(tensor), *tensor.shape[1:])
        parts = stock(torch.cat([tensor, missing])).split(max(sizes))
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    accelerator.gather = gather
    try:
        yield
    finally:
        del accelerator.gather  # the method is back


def has_score_head(classifier: Any) -> bool:
    """Whether `scores_of_all_tokens` works on a classifier of transformers."""
    return hasattr(classifier, "score")


@contextmanager
def scores_of_all_tokens(model: Any) -> Iterator[list[Any]]:
    """A list that gets the head's output for all tokens, [1, tokens, 1], at each forward pass.

    Relies on the head of transformers' decoders for classification: its name `score`, and its use on all tokens.
    """
    outputs: list[Any] = []
    head = next(module for name, module in model.named_modules() if name.split(".")[-1] == "score")
    handle = head.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


def gathered(value: Any) -> list[Any]:
    """The values of all processes of a training, in the order of their ranks. Every process must call it.

    TRL up to 1.13 averages a metric by one collective call per name, so it hangs if a process logs fewer names than
    another, such as one without a valid program. What not every process may have is therefore gathered first.
    """
    if "accelerate" not in sys.modules:
        return [value]
    from accelerate.state import PartialState, is_initialized
    from accelerate.utils import gather_object

    if not is_initialized() or PartialState().num_processes == 1:
        return [value]
    values: list[Any] = gather_object([value])
    return values


def processes_here() -> int:
    """The number of processes of the training on this machine, which share its cores. 1 without a launcher."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))

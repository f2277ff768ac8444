"""Fakes and tiny models for tests of code that uses this package. Nothing here is for production.

`FakeScorer` and `FakeExecutor` need neither a model nor a sandbox. The tiny models are real models of transformers
with random weights: they load, train and score in milliseconds, and their scores mean nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from codescaler_plugin.errors import SandboxError, ScorerError
from codescaler_plugin.extras import require
from codescaler_plugin.records import Problem, Verdict

__all__ = [
    "TINY_SIZES",
    "FakeExecutor",
    "FakeScorer",
    "save_tiny_model",
    "save_tiny_policy",
    "save_tiny_reward_model",
    "tiny_tokenizer",
    "tiny_vocabulary",
]

TINY_SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_CORPUS = [
    "def solve(n):\n    return n + 1\n",
    "for i in range(10):\n    total += i * i\nprint(total)\n",
    "Write a function solve(n) that returns the sum of the first n numbers.",
]


class FakeScorer:
    r"""A `Scorer` with known scores; `calls` holds the items of each call, the failed ones included.

    Args:
        score: score of a (problem, code), or a mapping from stripped code to score. The default is the length of the
            code in characters.
        fails_after: number of calls that succeed. Later ones raise `ScorerError`. The default is no limit.

    Example:
        >>> from codescaler_plugin import CodeScaler
        >>> scorer = FakeScorer({"x = 1": 2.5})
        >>> [judgement] = CodeScaler(scorer).judge(["Set x."], ["```python\nx = 1\n```"])
        >>> judgement.score
        2.5
        >>> scorer.calls
        [[('Set x.', 'x = 1\n')]]
    """

    def __init__(
        self,
        score: Callable[[str, str], float | None] | Mapping[str, float | None] | None = None,
        *,
        fails_after: int | None = None,
    ) -> None:
        self.calls: list[list[tuple[str, str]]] = []
        self._score, self._fails_after = score, fails_after

    @property
    def items(self) -> list[tuple[str, str]]:
        """The (problem, code) of all calls, in order."""
        return [item for call in self.calls for item in call]

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        """The scores of the items, in order."""
        self.calls.append(list(items))
        if self._fails_after is not None and len(self.calls) > self._fails_after:
            raise ScorerError("out of memory; try a smaller max_tokens")
        return [self._score_of(problem, code) for problem, code in items]

    def _score_of(self, problem: str, code: str) -> float | None:
        if self._score is None:
            return float(len(code))
        return self._score(problem, code) if callable(self._score) else self._score[code.strip()]


class FakeExecutor:
    """An `Executor` with known verdicts; `calls` holds the jobs of each call, the failed ones included.

    Args:
        verdict: verdict on a (code, problem), or a mapping from stripped code to verdict. A bool stands for a verdict
            without details.
        fails_after: number of calls that succeed. Later ones raise `SandboxError`. The default is no limit.

    Example:
        >>> from codescaler_plugin.records import CallTest, Problem
        >>> problem = Problem("double", "Double n.", (CallTest((2,), 4),), "double")
        >>> executor = FakeExecutor(lambda code, problem: "2 *" in code)
        >>> [verdict] = executor.run([("def double(n): return 2 * n", problem)])
        >>> verdict.passed
        True
    """

    def __init__(
        self,
        verdict: Callable[[str, Problem], Verdict | bool] | Mapping[str, Verdict | bool],
        *,
        fails_after: int | None = None,
    ) -> None:
        self.calls: list[list[tuple[str, Problem]]] = []
        self._verdict, self._fails_after = verdict, fails_after

    @property
    def jobs(self) -> list[tuple[str, Problem]]:
        """The (code, problem) of all calls, in order."""
        return [job for call in self.calls for job in call]

    def run(
        self, jobs: Sequence[tuple[str, Problem]], *, progress: Callable[[int], None] | None = None
    ) -> list[Verdict]:
        """The verdicts on the jobs, in order."""
        self.calls.append(list(jobs))
        if self._fails_after is not None and len(self.calls) > self._fails_after:
            raise SandboxError("no process can be started")
        if progress is not None:
            for _ in jobs:
                progress(1)
        return [self._verdict_of(code, problem) for code, problem in jobs]

    def _verdict_of(self, code: str, problem: Problem) -> Verdict:
        verdict = self._verdict(code, problem) if callable(self._verdict) else self._verdict[code.strip()]
        return Verdict(passed=verdict) if isinstance(verdict, bool) else verdict


def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer of 400 tokens with the chat template of Qwen3. Needs TRL, which ships the template.

    Raises:
        MissingExtraError: TRL is not installed.

    Example:
        >>> tiny_tokenizer().eos_token
        '<|im_end|>'
    """
    require("a tiny model", "trl", "trl")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        _CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=_SPECIAL_TOKENS)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        **dict(zip(("pad_token", "eos_token"), _SPECIAL_TOKENS[::2], strict=True)),
        model_input_names=["input_ids", "attention_mask"],  # transformers 4 has token_type_ids, too
        chat_template=(files("trl") / "chat_templates" / "qwen3.jinja").read_text(),
    )


def save_tiny_policy(folder: Path, **config: Any) -> Path:
    """Save a Qwen3 causal language model of two layers with `tiny_tokenizer`; returns the folder.

    Args:
        folder: where to save it.
        config: fields of `Qwen3Config` to override.

    Example:
        >>> import tempfile
        >>> save_tiny_policy(Path(tempfile.mkdtemp())).joinpath("config.json").exists()
        True
    """
    from transformers import Qwen3ForCausalLM

    return save_tiny_model(folder, lambda: Qwen3ForCausalLM(_qwen3_config(**config)))


def save_tiny_reward_model(folder: Path, *, num_labels: int = 1) -> Path:
    """Save a Qwen3 sequence classifier of two layers with `tiny_tokenizer`; returns the folder.

    A reward model has one label.

    Example:
        >>> import tempfile
        >>> from codescaler_plugin import load_scorer
        >>> folder = save_tiny_reward_model(Path(tempfile.mkdtemp()))
        >>> [score] = load_scorer(str(folder)).score([("Set x.", "x = 1")])
        >>> isinstance(score, float)
        True
    """
    from transformers import Qwen3ForSequenceClassification

    return save_tiny_model(folder, lambda: Qwen3ForSequenceClassification(_qwen3_config(num_labels=num_labels)))


def save_tiny_model(folder: Path, make: Callable[[], Any]) -> Path:
    """Save what `make` returns, with equal weights in each call, and `tiny_tokenizer` beside it; returns the folder.

    The weights are large enough that the scores of different texts differ clearly.

    The model is of transformers, and its vocabulary fits `tiny_tokenizer` (`tiny_vocabulary`).

    Example:
        >>> import tempfile
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> config = BertConfig(**tiny_vocabulary(), **TINY_SIZES, num_labels=1)
        >>> save_tiny_model(Path(tempfile.mkdtemp()), lambda: BertForSequenceClassification(config)).is_dir()
        True
    """
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        # Fresh weights of 0.02 give logits so alike that a mix-up of items would stay below any tolerance.
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "embed" not in name:
                torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_vocabulary() -> dict[str, int]:
    """The fields of a model's configuration that depend on `tiny_tokenizer`.

    Example:
        >>> sorted(tiny_vocabulary())
        ['eos_token_id', 'pad_token_id', 'vocab_size']
    """
    tokenizer = tiny_tokenizer()
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return {"vocab_size": len(tokenizer), **ids}


def _qwen3_config(**config: Any) -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(**tiny_vocabulary(), **TINY_SIZES, num_key_value_heads=1, head_dim=16, **config)

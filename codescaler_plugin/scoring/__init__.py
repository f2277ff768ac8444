"""(problem, code) -> raw logit. The one seam behind which reward models live."""

from collections.abc import Sequence
from typing import Any, Protocol

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.scoring.cache import CACHE_SIZE


class Scorer(Protocol):
    """Anything that gives raw logits for (problem, code) pairs.

    One that loads or connects on its first call may have a method `ensure_loaded()` besides, which does that alone and
    raises what the call would. `CodeScalerReward` calls it if its first call holds no valid program.
    """

    def score(self, items: Sequence[tuple[str, str]]) -> list[float | None]:
        """One raw logit per item, same length and order; None for an item that cannot be scored.

        Raises:
            ScorerError: the reward model failed.
        """
        ...


def load_scorer(
    model: str,
    *,
    max_length: int | None = None,
    max_tokens: int | None = None,
    device: str | None = None,
    cache_size: int = CACHE_SIZE,
    cache_dir: str | None = None,
    offload: bool = False,
    tokenizer: str | None = None,
    api_key: str | None = None,
    trust_remote_code: bool = False,
) -> Scorer:
    """The scorer for a model's name. Nothing is loaded or asked over the network before its first call.

    Args:
        model: a directory or a hub id: in this process (`TransformersScorer`). `builtin`: the embedded model, with a
            warning on problems that are none of the quickstart's.
            `vllm+http://host:8000`: a vLLM server, several divided by commas (`VllmScorer`); `#id` at the end
            holds them to a model.
            `http://host:9000`: a codescaler server, several divided by commas (`RemoteScorer`).
        max_length: tokens per sample; None: the model's own limit.
        max_tokens: in this process: tokens per forward pass; None: what fits the free memory.
        device: in this process: torch device; None: that of this process.
        cache_size: scores remembered across calls; 0: none.
        cache_dir: folder of a score file shared by processes; None: none.
        offload: in this process: move the model to CPU memory after each call.
        tokenizer: of vLLM's model, a directory or hub id; None: where the server says it has the model from.
        api_key: of a codescaler or vLLM server.
        trust_remote_code: in this process: run code that the model's folder brings, with all that this process may do.

    Raises:
        ConfigError: a URL of another kind, or a setting that has no effect on this kind of model.
    """
    if "://" in model:
        if trust_remote_code:
            raise ConfigError(
                f"trust_remote_code is for a model in this process: {model} runs no code of a model here"
            )
        if cache_dir is not None:
            raise ConfigError(f"cache_dir is for a model in this process: nobody knows the weights behind {model}")
        if model.startswith("vllm+"):
            from codescaler_plugin.scoring.vllm_scorer import VllmScorer

            urls, _, served = model.replace("vllm+", "").partition("#")
            return VllmScorer(
                urls,
                model=served or None,
                tokenizer=tokenizer,
                max_length=max_length,
                cache_size=cache_size,
                api_key=api_key,
            )
        from codescaler_plugin.scoring.remote_scorer import RemoteScorer

        return RemoteScorer(model, api_key=api_key)
    if tokenizer is not None:
        raise ConfigError(f"tokenizer is for a vLLM server's model: {model!r} brings its own")
    from codescaler_plugin.scoring.builtin_scorer import BuiltinScorer
    from codescaler_plugin.scoring.transformers_scorer import TransformersScorer

    settings: dict[str, Any] = {
        "max_length": max_length,
        "max_tokens": max_tokens,
        "device": device,
        "cache_size": cache_size,
        "cache_dir": cache_dir,
        "offload": offload,
        "trust_remote_code": trust_remote_code,
    }
    return BuiltinScorer(**settings) if model == "builtin" else TransformersScorer(model, **settings)

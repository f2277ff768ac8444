"""A model name -> its spec: a classifier in this process, a vLLM server, or another codescaler server.

The fields of a spec are its settings, described in `CodeScalerConfig`. Settings that a spec does not have are errors.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

from codescaler_plugin.builtin import BUILTIN
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.http_client import PATIENCE, RetryPolicy
from codescaler_plugin.scoring import Scorer
from codescaler_plugin.scoring.cache import CACHE_SIZE


@dataclass(frozen=True)
class Classifier:
    """A classifier of transformers in this process. Its settings are those of `TransformersScorer`."""

    kind: ClassVar[str] = "a model in this process"
    batches: ClassVar[int] = 2
    """Batches that it takes at once: one is computed while the next is tokenised."""

    path: str
    max_length: int | None = None
    max_tokens: int | None = None
    device: str | None = None
    cache_size: int = CACHE_SIZE
    cache_dir: str | None = None
    offload: bool = False
    trust_remote_code: bool = False

    def scorer(self) -> Scorer:
        """Return its scorer, which loads it on the first call."""
        from codescaler_plugin.scoring.builtin_scorer import BuiltinScorer
        from codescaler_plugin.scoring.transformers_scorer import TransformersScorer

        settings = asdict(self)
        path = settings.pop("path")
        return BuiltinScorer(**settings) if path == BUILTIN else TransformersScorer(path, **settings)


@dataclass(frozen=True)
class EngineServer:
    """vLLM servers with the same model. The settings are those of `VllmScorer`, and the seconds of `RetryPolicy`."""

    kind: ClassVar[str] = "a vLLM server"
    batches: ClassVar[int] = 8

    urls: str
    model: str | None = None
    tokenizer: str | None = None
    max_length: int | None = None
    cache_size: int = CACHE_SIZE
    api_key: str | None = field(default=None, repr=False)
    patience: float = PATIENCE

    def scorer(self) -> Scorer:
        """Return its scorer, which connects on the first call."""
        from codescaler_plugin.scoring.vllm_scorer import VllmScorer

        settings = asdict(self)
        retry = RetryPolicy(seconds=settings.pop("patience"))
        return VllmScorer(settings.pop("urls"), **settings, retry=retry)


@dataclass(frozen=True)
class CodescalerServer:
    """Other codescaler servers (`RemoteScorer`). The settings of scoring are set where they are started."""

    kind: ClassVar[str] = "another codescaler server"
    batches: ClassVar[int] = 8

    urls: str
    api_key: str | None = field(default=None, repr=False)
    patience: float = PATIENCE

    def scorer(self) -> Scorer:
        """Return its scorer, which connects on the first call."""
        from codescaler_plugin.scoring.remote_scorer import RemoteScorer

        return RemoteScorer(self.urls, api_key=self.api_key, retry=RetryPolicy(seconds=self.patience))


ModelSpec = Classifier | EngineServer | CodescalerServer
_SPECS = (Classifier, EngineServer, CodescalerServer)
MODEL_SETTINGS = sorted({setting.name for spec in _SPECS for setting in fields(spec)} - {"path", "urls", "model"})


def model_spec(model: str, **settings: Any) -> ModelSpec:
    """Return the spec of a model name as in `load_scorer`. Settings of None and False stand for their defaults.

    Raises:
        ConfigError: the name is empty, or the spec does not have the setting.
    """
    if not model:
        raise ConfigError("model is empty: give a hub id, a directory, a server, or 'builtin'")
    if "://" in model and "@" in model:  # not shown: it holds a key
        raise ConfigError("a server's address holds a name or a key: give the key as api_key (CODESCALER_API_KEY)")
    kind: type[ModelSpec]
    name: dict[str, Any]
    if "://" not in model:
        kind, name = Classifier, {"path": model}
    elif model.startswith("vllm+"):
        urls, _, served = model.replace("vllm+", "").partition("#")
        if "," in served:
            raise ConfigError(f"model is {model!r}: expected the id behind # once, after the last address")
        kind, name = EngineServer, {"urls": urls, "model": served or None}
    else:
        kind, name = CodescalerServer, {"urls": model}
    given = {setting: value for setting, value in settings.items() if value is not None and value is not False}
    known = [setting.name for setting in fields(kind) if setting.name not in name]
    for setting in given:
        if setting not in known:
            where = ": set it where that server is started, and leave it out here" if "://" in model else ""
            raise ConfigError(
                f"{setting} has no effect on {model!r}, which is {kind.kind}{where}; it has the settings "
                f"{', '.join(known)}"
            )
    return kind(**name, **given)

"""The settings of `CodeScalerRewardTrainer`."""

from dataclasses import dataclass, field

from trl import RewardConfig

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.preference.mutations import PRESERVING


@dataclass
class CodeScalerRewardConfig(RewardConfig):  # type: ignore[misc]
    """TRL's `RewardConfig` with more settings, and defaults of AceCoder, as the paper does not give its own.

    Attributes:
        max_length: tokens of the longest side. Longer pairs lose the middle of their problem, equally on both sides.
        unaligned_ratio: share of pairs that bring a second one, whose rejected side is right code for another problem
            of the batch; drawn again in each epoch. The default is inferred from an artefact's name; 0 is none.
        rewrite_ratio: share of pairs that are seen with both sides rewritten alike by one of `rewrite_kinds`; drawn
            again in each epoch, Python only. The default is none. Its effect is not measured here.
        margin_scale: target margin of the loss per unit of a pair's `margin`, the gap of the pass rates.
        label_smoothing: probability that a label is wrong, for noisy tests; in [0, 0.5).
        share_prefixes: compute what the sides of a batch share once. Exact, for the models of `families.SHARED`.

    Example:
        >>> args = CodeScalerRewardConfig("reward-model", use_cpu=True, bf16=False)
        >>> args.max_length, args.unaligned_ratio
        (4096, 0.3)
    """

    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate."})
    max_length: int | None = field(default=4096, metadata={"help": "Tokens of the longest side of a pair."})
    language: str = field(default="python", metadata={"help": "Language of the code, or 'any'."})
    unaligned_ratio: float = field(
        default=0.3, metadata={"help": "Share of pairs that bring one with right code for another problem."}
    )
    rewrite_ratio: float = field(default=0.0, metadata={"help": "Share of pairs seen with both sides rewritten."})
    rewrite_kinds: list[str] = field(
        default_factory=lambda: ["padding", "rename", "reformat"], metadata={"help": "How: see `codescaler augment`."}
    )
    margin_scale: float = field(default=0.0, metadata={"help": "Target margin per unit of pass-rate gap; 0: none."})
    label_smoothing: float = field(default=0.0, metadata={"help": "Probability that a label is wrong."})
    share_prefixes: bool = field(default=True, metadata={"help": "Compute what the sides of a batch share once."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("unaligned_ratio", "rewrite_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected a share in [0, 1]")
        if not self.rewrite_kinds or not set(self.rewrite_kinds) <= set(PRESERVING):
            raise ConfigError(f"rewrite_kinds is {self.rewrite_kinds}: expected some of {', '.join(PRESERVING)}")
        if self.rewrite_ratio and self.language != "python":
            raise ConfigError(f"rewrite_ratio is {self.rewrite_ratio} for language {self.language!r}: only for python")
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(f"label_smoothing is {self.label_smoothing}: expected a probability in [0, 0.5)")
        if self.margin_scale < 0:
            raise ConfigError(f"margin_scale is {self.margin_scale}: expected at least 0")

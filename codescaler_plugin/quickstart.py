"""The first minutes: GRPO improves the embedded policy with the embedded reward model, and no test is run in training.

Tests are run twice, before and after, only to measure what the training did, on problems whose compositions neither
model has seen. It is a demonstration at toy size: its numbers are the miniature's, never the paper's.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from codescaler_plugin.builtin import HELD_OUT_PROBLEMS, POLICY, TRAIN_PROBLEMS
from codescaler_plugin.data.outputs import check_folder, locked_folder, open_resumable, write_output, write_text
from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.data.rollouts import rows_of
from codescaler_plugin.evaluation.policy import Measurement, measure_policy
from codescaler_plugin.extras import require
from codescaler_plugin.integrations.trl.reward import CodeScalerReward
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.records import Judgement, Problem, Status
from codescaler_plugin.threads import fitting_threads

if TYPE_CHECKING:
    from codescaler_plugin.integrations.trl.monitor import RewardHackingMonitor

STEPS = 80
LEARNING_RATE = 2e-4
KL_COEFFICIENT = 0.05
GROUP = 8
BATCH = 64
MAX_NEW_TOKENS = 96
MEASURED_PROBLEMS = 128


@dataclass(frozen=True)
class QuickstartReport:
    """What was measured. Shares are in [0, 1]; rewards are the shaped ones, in [0, ∞).

    `pass_at_1_*`, `invalid_*` and `mean_reward_*` are over 8 samples of each of 128 held-out problems; `best_of_8`
    takes the highest reward of the 8 of the untrained policy, `oracle_8` counts problems with any passing sample.
    """

    pass_at_1_before: float
    pass_at_1_after: float
    best_of_8: float
    best_of_8_after: float
    oracle_8: float
    invalid_before: float
    invalid_after: float
    mean_reward_before: float
    mean_reward_after: float
    steps: int
    seed: int
    seconds: float
    output: str


def run_quickstart(
    *,
    steps: int | None = None,
    seed: int = 0,
    output: Path,
    console: Console | None = None,
    results: Console | None = None,
) -> QuickstartReport:
    """Measure, train with GRPO, measure again; print a table and write everything under `output`.

    Writes `history.jsonl` (a line per step, as it goes), `samples_before.jsonl`, `samples_after.jsonl`,
    `curve.png`, `report.json` and the trained `policy/`. Earlier files of these names are overwritten.

    Args:
        steps: GRPO steps; None: `STEPS`, which was fixed on other seeds than the ones reported.
        seed: of sampling and training order. Equal seeds give equal results on equal machines.
        output: folder, made if absent.
        console: where progress is printed; None: stderr.
        results: where the table and the example are printed; None: stdout.

    Raises:
        MissingExtraError: trl or matplotlib is not installed.
        ConfigError: `output` is a file, or cannot be written.
        KeyboardInterrupt: passed on after what was written has been named.

    Example:
        >>> report = run_quickstart(steps=2, output=Path("codescaler-quickstart"))
        >>> report.steps
        2
    """
    require("quickstart", "trl", "trl", "matplotlib")
    check_folder(output)
    console = console or Console(stderr=True)
    try:
        with locked_folder(output), _quiet():
            return _run(steps or STEPS, seed, output, console, results or Console())
    except KeyboardInterrupt:
        written = sorted(path.name for path in output.iterdir())
        console.print(f"\nStopped. Written so far in {output}: {', '.join(written) or 'nothing'}", style="yellow")
        raise


def _run(steps: int, seed: int, output: Path, console: Console, results: Console) -> QuickstartReport:
    start = perf_counter()
    with _bar(console, "loading TRL and the embedded models", total=1) as advance:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
        from trl import GRPOTrainer  # noqa: F401 - the slow import belongs under this bar

        set_seed(seed)
        policy = pretrained(AutoModelForCausalLM, POLICY, dtype=torch.float32).eval()
        tokenizer = pretrained(AutoTokenizer, POLICY)
        reward = CodeScalerReward(model="builtin")
        problems = list(islice(read_problems(HELD_OUT_PROBLEMS), MEASURED_PROBLEMS))
        advance(1)

    def measure_under_bar(label: str) -> Measurement:
        with _bar(console, f"sampling and testing {label}", total=GROUP * len(problems)) as advance:
            measured = measure_policy(
                policy,
                tokenizer,
                reward.scaler,
                problems,
                n=GROUP,
                max_new_tokens=MAX_NEW_TOKENS,
                progress=advance,
            )
        _write_samples(output / f"samples_{label}.jsonl", problems, measured)
        return measured

    before = measure_under_bar("before")
    history: list[dict[str, float]] = []
    with (
        open_resumable(output / "history.jsonl") as file,
        _bar(console, f"GRPO, {BATCH} completions a step", total=steps) as advance,
    ):
        file.truncate(0)  # it grows step by step, so that a run that is stopped leaves what it has

        def record(logs: dict[str, float]) -> None:
            history.append(logs)
            file.write(json.dumps(logs).encode() + b"\n")
            file.flush()
            advance(1)

        train_grpo(policy, tokenizer, reward, steps=steps, seed=seed, folder=output / "trainer", on_step=record)
    policy.save_pretrained(output / "policy")
    tokenizer.save_pretrained(output / "policy")
    after = measure_under_bar("after")
    _plot(output / "curve.png", history, before, after)
    report = QuickstartReport(
        pass_at_1_before=before.sampled.pass_at_1,
        pass_at_1_after=after.sampled.pass_at_1,
        best_of_8=before.best_of_n,
        best_of_8_after=after.best_of_n,
        oracle_8=before.sampled.oracle,
        invalid_before=before.sampled.invalid_share,
        invalid_after=after.sampled.invalid_share,
        mean_reward_before=before.mean_reward,
        mean_reward_after=after.mean_reward,
        steps=steps,
        seed=seed,
        seconds=round(perf_counter() - start, 1),
        output=str(output),
    )
    write_text(output / "report.json", json.dumps(asdict(report), indent=2) + "\n")
    _show(results, report, problems, after)
    return report


def train_grpo(
    policy: Any,
    tokenizer: Any,
    reward: Callable[..., list[float | None]],
    *,
    steps: int,
    seed: int,
    folder: Path,
    on_step: Callable[[dict[str, float]], None],
    texts: Sequence[str] | None = None,
    learning_rate: float = LEARNING_RATE,
    beta: float = KL_COEFFICIENT,
    monitor: "RewardHackingMonitor | None" = None,
    audit_every: int = 4,
) -> None:
    """Train the policy in place with TRL's GRPOTrainer on problems that carry no tests.

    Args:
        policy: a causal language model, in float32.
        tokenizer: its tokenizer.
        reward: see TRL's `reward_funcs`.
        steps: of `BATCH` completions.
        seed: of sampling and order.
        folder: what the trainer writes.
        on_step: gets each step's log, with `step` among its keys.
        texts: the problems; None: the embedded ones.
        learning_rate: constant after a short warm-up.
        beta: weight of the divergence from the start.
        monitor: its audit is written before the first step and every `audit_every` steps.
        audit_every: steps.
    """
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    class Reporter(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:  # noqa: ARG002
            if "reward" in logs:
                on_step({"step": state.global_step, **logs})

    if texts is None:
        texts = [row["problem"] for _, _, row in rows_of(TRAIN_PROBLEMS)]
    prompts = [{"prompt": [{"role": "user", "content": text}]} for text in texts]
    trainer = GRPOTrainer(
        model=policy,
        processing_class=tokenizer,
        reward_funcs=[reward],
        train_dataset=Dataset.from_list(prompts),
        args=GRPOConfig(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            num_generations=GROUP,
            max_completion_length=MAX_NEW_TOKENS,
            learning_rate=learning_rate,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=5,
            beta=beta,
            temperature=1.0,
            top_k=0,
            seed=seed,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            eval_strategy="no" if monitor is None else "steps",
            eval_steps=audit_every,
            eval_on_start=monitor is not None,
            per_device_eval_batch_size=4 * BATCH,
        ),
        eval_dataset=None if monitor is None else Dataset.from_list(monitor.rows()),
        callbacks=[Reporter(), *([] if monitor is None else [monitor])],
    )
    trainer.remove_callback(PrinterCallback)  # it would print every log over the progress bar
    with fitting_threads(policy):
        trainer.train()
    policy.eval()


def _write_samples(path: Path, problems: list[Problem], measured: Measurement) -> None:
    with write_output(path) as file:
        for problem, texts, verdicts, judgements in zip(
            problems, measured.sampled.completions, measured.sampled.passed, measured.judgements, strict=True
        ):
            for text, passed, judgement in zip(texts, verdicts, judgements, strict=True):
                row = {"problem": problem.text, "completion": text, "passed": passed, **asdict(judgement)}
                file.write(json.dumps(row) + "\n")


def _plot(path: Path, history: list[dict[str, float]], before: Measurement, after: Measurement) -> None:
    from matplotlib.figure import Figure

    steps = [row["step"] for row in history]
    figure = Figure(figsize=(8, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    top.plot(steps, [row["reward"] for row in history], color="tab:blue")
    top.set_ylabel("mean reward\n(training problems)")
    top.set_title("GRPO with the embedded CodeScaler reward: no test is run in training")
    invalid = [1 - row["codescaler_reward/status/ok"] for row in history]
    bottom.plot(steps, invalid, color="tab:red", label="invalid share (training problems)")
    ends = [0, steps[-1]]
    rates = [before.sampled.pass_at_1, after.sampled.pass_at_1]
    bottom.plot(ends, rates, "o--", color="tab:green", label="pass@1 (held-out, by execution)")
    for step, rate in zip(ends, rates, strict=True):
        bottom.annotate(f"{rate:.2f}", (step, rate), textcoords="offset points", xytext=(0, 8), ha="center")
    bottom.set(xlabel="GRPO step", ylabel="share", ylim=(0, 1))
    bottom.legend(loc="upper left")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
        axes.margins(x=0.04)
    with write_output(path, binary=True) as file:
        figure.savefig(file, dpi=120)


def _show(console: Console, report: QuickstartReport, problems: Sequence[Problem], after: Measurement) -> None:
    table = Table(title=f"{len(problems)} held-out problems, {GROUP} samples each, temperature 1")
    for heading in ("", "before", "after"):
        table.add_column(heading, justify="left" if not heading else "right")
    rows = (
        ("pass@1 (hidden tests, by execution)", report.pass_at_1_before, report.pass_at_1_after),
        ("invalid share", report.invalid_before, report.invalid_after),
        ("mean reward", report.mean_reward_before, report.mean_reward_after),
        ("best of 8, chosen by reward", report.best_of_8, report.best_of_8_after),
        ("any of 8 passes (ceiling)", report.oracle_8, after.sampled.oracle),
    )
    for label, first, second in rows:
        table.add_row(label, f"{first:.3f}", f"{second:.3f}")
    console.print(table)
    if report.steps < STEPS:
        console.print(f"{report.steps} of {STEPS} steps: too few to expect much.")
    if (found := _example(problems, after)) is not None:
        problem, right, wrong = found
        console.print(Panel(Text(problem.text), title="a held-out problem", title_align="left"))
        for label, judgement in (("right: passes its hidden tests", right), ("wrong: fails a hidden test", wrong)):
            code = Syntax(judgement.code.rstrip(), "python", theme="ansi_dark", word_wrap=True)
            title = f"{label}; score {judgement.score:.2f}, reward {judgement.reward:.2f}"
            console.print(Panel(code, title=title, title_align="left"))
        if (right.reward or 0) <= (wrong.reward or 0):
            console.print("Here the reward model errs: it prefers the wrong program.")
    console.print(f"{report.seconds:.0f} s. Written to {report.output}/: report.json, curve.png, history.jsonl,")
    console.print("samples_before.jsonl, samples_after.jsonl, policy/")
    console.print("\nNext:", style="bold")
    for line in _NEXT:
        console.print(f"  {line.format(output=report.output)}", markup=False, highlight=False)


_NEXT = (
    "the reward in your own TRL script: reward_funcs=[CodeScalerReward()]",
    "the reward of a file of completions:",
    "  codescaler score {output}/samples_after.jsonl --model builtin",
    "a reward model of your own: codescaler verify, mine and augment",
    "everything else: codescaler --help, and the README",
)


def _example(problems: Sequence[Problem], after: Measurement) -> tuple[Problem, Judgement, Judgement] | None:
    """The first problem with a valid program that passes and one that fails, and the first of each."""
    for problem, verdicts, judgements in zip(problems, after.sampled.passed, after.judgements, strict=True):
        scored = [
            (passed, judgement)
            for passed, judgement in zip(verdicts, judgements, strict=True)
            if judgement.status is Status.OK and judgement.score is not None
        ]
        right = next((judgement for passed, judgement in scored if passed), None)
        wrong = next((judgement for passed, judgement in scored if not passed), None)
        if right is not None and wrong is not None:
            return problem, right, wrong
    return None


@contextmanager
def _bar(console: Console, label: str, *, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar; where the console is no terminal, one line when the stage is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    start = perf_counter()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.update(task, advance=count)
    if not console.is_terminal:
        console.print(f"{label}: {perf_counter() - start:.0f} s")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the hosts' own notices and bars, which are about their defaults, not about this run."""
    from datasets.utils.logging import disable_progress_bar
    from transformers.utils import logging as transformers_logging

    disable_progress_bar()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""The quickstart: GRPO trains the embedded policy with the embedded reward model, without running a test.

Tests run only before and after, to measure the effect on problems whose compositions neither model has seen. The
models are tiny, so the numbers are those of the miniature and not of the paper.
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

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from codescaler_plugin.builtin import HELD_OUT_PROBLEMS, POLICY
from codescaler_plugin.data.outputs import check_folder, locked_folder, open_resumable, write_output, write_text
from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.evaluation.policy import Measurement, measure_policy
from codescaler_plugin.extras import require
from codescaler_plugin.integrations.trl.reward import CodeScalerReward
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.records import Judgement, Problem, Status

STEPS = 80
SAMPLES = 8
MEASURED_PROBLEMS = 128


@dataclass(frozen=True)
class QuickstartReport:
    """The measurements of the quickstart, before and after training. Shares are in [0, 1], shaped rewards in [0, ∞).

    `pass_at_1_*`, `invalid_*` and `mean_reward_*` are means over 8 completions of each of 128 held-out problems.
    `best_of_8*` is the pass rate of the completion with the highest reward among the 8. `oracle_8` is the share of
    problems with any passing completion before training.

    Example:
        >>> rates = dict(pass_at_1_before=0.41, pass_at_1_after=0.6, best_of_8=0.7, best_of_8_after=0.8, oracle_8=0.9)
        >>> rest = dict(invalid_before=0.1, invalid_after=0.0, mean_reward_before=0.5, mean_reward_after=0.9)
        >>> report = QuickstartReport(**rates, **rest, steps=80, seed=0, seconds=180.0, output="run")
        >>> round(report.pass_at_1_after - report.pass_at_1_before, 2)
        0.19
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
    """Measure the policy, train it with GRPO, measure it again, and print a table.

    Writes `history.jsonl` (a line after each step), `samples_before.jsonl`, `samples_after.jsonl`, `curve.png`,
    `report.json` and the trained `policy/`. Earlier files of these names are overwritten.

    Args:
        steps: GRPO steps. The default is `STEPS`, which was chosen on other seeds than the reported ones.
        seed: seed of sampling and training order. Equal seeds give equal results on equal machines.
        output: folder of the results, created if absent.
        console: console of the progress. The default is stderr.
        results: console of the table and the example. The default is stdout.

    Raises:
        MissingExtraError: trl or matplotlib is not installed.
        ConfigError: `output` is a file, or cannot be written.
        KeyboardInterrupt: raised again after the written files have been named.

    Example:
        >>> report = run_quickstart(steps=2, output=Path("codescaler-quickstart"))  # doctest: +SKIP
        >>> report.steps  # doctest: +SKIP
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

        from codescaler_plugin.integrations.trl import small_grpo

        set_seed(seed)
        policy = pretrained(AutoModelForCausalLM, POLICY, dtype=torch.float32).eval()
        tokenizer = pretrained(AutoTokenizer, POLICY)
        reward = CodeScalerReward(model="builtin")
        problems = list(islice(read_problems(HELD_OUT_PROBLEMS), MEASURED_PROBLEMS))
        advance(1)

    def measure_under_bar(label: str) -> Measurement:
        with _bar(console, f"sampling and testing {label}", total=SAMPLES * len(problems)) as advance:
            settings = {"n": SAMPLES, "max_new_tokens": small_grpo.MAX_NEW_TOKENS}
            measured = measure_policy(policy, tokenizer, reward.scaler, problems, **settings, progress=advance)
        _write_samples(output / f"samples_{label}.jsonl", problems, measured)
        return measured

    before = measure_under_bar("before")
    history: list[dict[str, float]] = []
    with (
        open_resumable(output / "history.jsonl") as file,
        _bar(console, f"GRPO, {small_grpo.BATCH} completions a step", total=steps) as advance,
    ):
        file.truncate(0)  # it grows step by step, so that an interrupted run leaves its history

        def record(logs: dict[str, float]) -> None:
            history.append(logs)
            file.write(json.dumps(logs).encode() + b"\n")
            file.flush()
            advance(1)

        small_grpo.train_grpo(
            policy, tokenizer, reward, steps=steps, seed=seed, folder=output / "trainer", on_step=record
        )
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


def _write_samples(path: Path, problems: list[Problem], measured: Measurement) -> None:
    with write_output(path) as file:
        for problem, completions, verdicts, judgements in zip(
            problems, measured.sampled.completions, measured.sampled.passed, measured.judgements, strict=True
        ):
            for completion, passed, judgement in zip(completions, verdicts, judgements, strict=True):
                row = {"problem": problem.text, "completion": completion, "passed": passed, **asdict(judgement)}
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
    table = Table(title=f"{len(problems)} held-out problems, {SAMPLES} completions each, temperature 1")
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
    if (example := _example(problems, after)) is not None:
        problem, right, wrong = example
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
    """The first problem with both a valid program that passes and one that fails, and the first of each."""
    for problem, verdicts, judgements in zip(problems, after.sampled.passed, after.judgements, strict=True):
        sides: dict[bool, Judgement] = {}
        for passed, judgement in zip(verdicts, judgements, strict=True):
            if judgement.status is Status.OK and judgement.score is not None:
                sides.setdefault(passed, judgement)
        if len(sides) == 2:
            return problem, sides[True], sides[False]
    return None


@contextmanager
def _bar(console: Console, label: str, *, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar. If the console is not a terminal, one line at the end of the stage instead."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    start = perf_counter()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.update(task, advance=count)
    if not console.is_terminal:
        console.print(f"{label}: {perf_counter() - start:.0f} s")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the hosts' own notices and bars, which are about their defaults and not about this run."""
    from datasets.utils.logging import disable_progress_bar
    from transformers.utils import logging as transformers_logging

    disable_progress_bar()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

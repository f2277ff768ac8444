"""The paper's claims at the size of a laptop: what a reward without tests is worth, beside tests, and what it needs.

Hardware: 2 CPU cores, 3 GB of memory, no network; under 60 minutes a seed. Versions: the package's `[trl,report]`.

    pip install -e ".[trl,report]"
    bash recipes/miniature/run.sh                       # seed 0
    bash recipes/miniature/run.sh --seeds 0 1 2         # all three, under 3 hours

Every arm trains the embedded policy from the same start with the quickstart's settings, for more steps, and is
measured by running the hidden tests of held-out compositions. The embedded reward model was made by `run.py`; the arms
that change how a reward model is made train one each, from equally many pairs, fewer than the embedded one's: compare
with `small`. Each arm is a process with one thread, `--jobs` at a time; what is done is not done again in the same
output folder, which holds to the constants below that it was begun with (`constants.json`).

Writes `<seed>/<arm>.json`, `paper.html` with `paper.md`, `paper.png`, `results.json`, and prints one line of JSON. The
column `the paper` cites arXiv 2602.17684; nothing in this file reproduces its numbers.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from statistics import fmean, median
from time import perf_counter
from typing import Any

import torch
from matplotlib.figure import Figure
from measure import accuracies
from pairs import near_miss_pairs, real_pairs
from reward_model import UNALIGNED_RATIO, train_reward_model
from rollouts import COMPLETIONS_PER_PROBLEM, distinct_problems, roll_out, verdict_rows
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from codescaler_plugin import (
    CodeScaler,
    CodeScalerReward,
    CodeScalerTestsReward,
    load_scorer,
    shape_reward,
)
from codescaler_plugin.builtin import POLICY
from codescaler_plugin.data.outputs import write_text
from codescaler_plugin.data.pairs import read_pairs, write_pairs
from codescaler_plugin.evaluation.policy import Measurement, measure_policy
from codescaler_plugin.evaluation.robustness import evaluate_robustness
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.integrations.trl import small_grpo
from codescaler_plugin.intervals import Mean, mean_of
from codescaler_plugin.preference.mining import mine_pairs
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.records import PreferencePair, Problem, Status
from codescaler_plugin.report.page import write_page
from codescaler_plugin.report.sections import Plot, Section, Table
from codescaler_plugin.selection.cascade import decide_by_tests
from codescaler_plugin.selection.ranking import best_of_n
from codescaler_plugin.text.messages import completion_text

VERIFIED = 160  # problems that have tests; the rest of the world has none
SYNTHETIC = 4 * VERIFIED
ROLLED_OUT = 1250  # problems whose rollouts give the pairs of the arms' own reward models
PAIRS = 4200  # of each of those, before unaligned ones
MEASURED = 128
STEPS = 160  # of every arm: what choose_steps.py found best on training compositions, seeds 100 and 101
N = COMPLETIONS_PER_PROBLEM
SELECTED = ("chosen", "reward_model_seconds", "tests_seconds", "cascade_seconds", "tests_run", "cascade_run")


@dataclass(frozen=True)
class Arm:
    """A way to train: what it is called in the report, and on how many problems."""

    says: str
    problems: int = VERIFIED
    own_reward_model: bool = False


ARMS = {
    "base": Arm("no training", problems=0),
    "tests": Arm("tests as the reward, 0 or 1"),
    "codescaler": Arm("CodeScaler, the same problems, no tests"),
    "codescaler_4x": Arm("CodeScaler, 4x the problems, none with tests", problems=SYNTHETIC),
    "no_extraction": Arm("the whole answer scored, nothing extracted or checked"),
    "no_shaping": Arm("raw scores: valid code may be worth less than invalid"),
    "small": Arm("a smaller reward model, all else as CodeScaler", own_reward_model=True),
    "no_unaligned": Arm("the smaller one without unaligned negatives", own_reward_model=True),
    "off_policy": Arm("the smaller one on mutants of reference programs, no rollouts", own_reward_model=True),
}


class WholeAnswerReward:
    """The reward model reads the answer as it came: no block is looked for, nothing is compiled."""

    __name__ = "whole_answer"

    def __init__(self) -> None:
        self.scorer = load_scorer("builtin")

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **_: Any) -> list[float | None]:
        """Rewards of n completions."""
        texts = [completion_text(one) for one in completions]
        scores = self.scorer.score(
            [(prompt[-1]["content"], text) for prompt, text in zip(prompts, texts, strict=True)]
        )
        return [None if score is None else shape_reward(score, Status.OK) for score in scores]


def world(seed: int) -> tuple[list[Problem], list[Problem]]:
    """Problems to train on, those with tests first, and held-out ones to measure on."""
    rng = Random(f"paper {seed}")
    train = distinct_problems(rng, SYNTHETIC, held_out=False)
    held = distinct_problems(Random("paper, held out"), MEASURED, held_out=True)
    return [one.record() for one in train], [one.record() for one in held]


def make_pairs(folder: Path, seed: int) -> None:
    """Pairs of the embedded policy's rollouts on problems that no arm trains on, and off-policy ones."""
    rng = Random(f"paper, pairs {seed}")
    known = {problem.text for problem in world(seed)[0]}
    problems = [one for one in distinct_problems(rng, ROLLED_OUT, held_out=False) if one.problem not in known]
    rows = verdict_rows(problems, roll_out(POLICY, problems, seed=seed))
    mined, _ = mine_pairs(rows, pairs_per_problem=8, seed=seed)
    rng.shuffle(mined)
    write_pairs(near_miss_pairs(PAIRS, rng), folder / "off_policy.jsonl")
    write_pairs(mined, folder / "on_policy.jsonl")  # last: its presence says that both are whole


def own_reward_model(arm: str, folder: Path, seed: int) -> Path:
    """Train the reward model of an arm, once. All see the same number of pairs, unaligned ones counted."""
    output = folder / f"{arm}_reward_model"
    if not (output / "config.json").exists():
        pairs = list(read_pairs(folder / ("off_policy.jsonl" if arm == "off_policy" else "on_policy.jsonl")))
        ratio = 0.0 if arm == "no_unaligned" else UNALIGNED_RATIO
        count = PAIRS if ratio else round(PAIRS * (1 + UNALIGNED_RATIO))
        if len(pairs) < count:
            raise SystemExit(f"{arm}: {len(pairs)} pairs were mined and {count} are needed: raise ROLLED_OUT")
        train_reward_model(POLICY, pairs[:count], output, seed=seed, unaligned_ratio=ratio)
    return output


def reward_of(arm: str, folder: Path, seed: int, problems: Sequence[Problem]) -> Callable[..., list[float | None]]:
    """What the arm trains on."""
    if arm == "tests":
        return CodeScalerTestsReward(problems)  # 0 or 1: what most code RL trains on
    if arm == "no_extraction":
        return WholeAnswerReward()
    if arm == "no_shaping":
        return CodeScalerReward(model="builtin", shaping="raw")
    return CodeScalerReward(
        model=str(own_reward_model(arm, folder, seed)) if ARMS[arm].own_reward_model else "builtin"
    )


def run_arm(arm: str, folder: Path, seed: int) -> None:
    """Train, measure, write `<arm>.json`."""
    start = perf_counter()
    set_seed(seed)
    policy = pretrained(AutoModelForCausalLM, POLICY, dtype=torch.float32).eval()
    tokenizer = pretrained(AutoTokenizer, POLICY)
    train, held = world(seed)
    judge = CodeScaler(load_scorer("builtin"))
    found: dict[str, Any] = {"curve": []}
    if ARMS[arm].problems:
        problems = train[: ARMS[arm].problems]
        small_grpo.train_grpo(
            policy,
            tokenizer,
            reward_of(arm, folder, seed, problems),
            steps=STEPS,
            seed=seed,
            folder=folder / f"{arm}_trainer",
            on_step=lambda logs: found["curve"].append(logs["reward"]),
            texts=[problem.text for problem in problems],
        )
    trained = perf_counter()
    torch.manual_seed(seed)
    measured = measure_policy(policy, tokenizer, judge, held, n=N)
    found |= {
        "passed": measured.sampled.passed,
        "invalid": [[one.status != Status.OK for one in row] for row in measured.judgements],
        "rewards": [[one.reward for one in row] for row in measured.judgements],
        "seconds": {"training": trained - start, "measurement": perf_counter() - trained},
    }
    if arm == "base":
        found["selection"] = selection(measured, held)
        pairs = held_out_pairs(measured, held, seed)
        write_pairs(pairs, folder / "held_out.jsonl")
        found["reward_model"] = reward_model_numbers(pairs, "builtin", seed)
    elif ARMS[arm].own_reward_model:
        pairs = list(read_pairs(folder / "held_out.jsonl"))
        found["reward_model"] = reward_model_numbers(pairs, str(own_reward_model(arm, folder, seed)), seed)
    whole = folder / f"{arm}.json.part"
    write_text(whole, json.dumps(found) + "\n")
    whole.rename(folder / f"{arm}.json")


def held_out_pairs(measured: Measurement, problems: Sequence[Problem], seed: int) -> list[PreferencePair]:
    """Pairs of the untrained policy's answers to held-out compositions."""
    rows = [
        {"problem": problem.text, "code": one.code, "status": one.status, "passed": passed}
        for problem, judgements, verdicts in zip(problems, measured.judgements, measured.sampled.passed, strict=True)
        for one, passed in zip(judgements, verdicts, strict=True)
    ]
    return mine_pairs(rows, pairs_per_problem=6, seed=seed)[0]


def reward_model_numbers(pairs: list[PreferencePair], model: str, seed: int) -> dict[str, Any]:
    """How often a reward model is right on held-out pairs, and what edits that keep the meaning do to it."""
    scorer = load_scorer(model)
    return {
        "rollouts": accuracies(pairs, scorer),
        "real": accuracies(real_pairs("held_out"), scorer),
        "robustness": evaluate_robustness(pairs, scorer, limit=200, seed=seed).to_json(),
    }


def selection(measured: Measurement, problems: Sequence[Problem]) -> dict[str, list[float]]:
    """Choosing one of N answers by the reward model, by all tests, and by tests in the reward model's order.

    Rows by problem: whether the choice passes, wall seconds, programs run. One thread, one warm sandbox worker;
    another arm may run beside it.
    """
    judge = CodeScaler(load_scorer("builtin", cache_size=0))
    judge.judge(["Add one."], ["```python\ndef solve(n):\n    return n + 1\n```"])  # the model is loaded
    rows: dict[str, list[float]] = {name: [] for name in SELECTED}
    with Sandbox(workers=1) as sandbox:
        for problem, texts, verdicts in zip(
            problems, measured.sampled.completions, measured.sampled.passed, strict=True
        ):
            start = perf_counter()
            ranked = best_of_n(judge, problem.text, texts, extraction="single")
            scored = perf_counter()
            sandbox.run([(one.judgement.code, problem) for one in ranked.programs])
            tested = perf_counter()
            [decided] = decide_by_tests([ranked], [problem], executor=sandbox)
            found = {
                "chosen": ranked.best is not None and verdicts[ranked.best.index],
                "reward_model_seconds": scored - start,
                "tests_seconds": tested - scored,
                "cascade_seconds": perf_counter() - tested + scored - start,
                "tests_run": len(ranked.programs),
                "cascade_run": decided.executions,
            }
            for name in SELECTED:
                rows[name].append(found[name])
    return rows


# What is said of it


@dataclass(frozen=True)
class Runs:
    """All arms of all seeds; every number is a mean over the seeds' held-out problems."""

    arms: dict[str, list[dict[str, Any]]]  # by name, a run for each seed

    def rates(self, arm: str, what: str = "passed") -> list[float]:
        """Mean of a row's N values, seed after seed, problem after problem."""
        return [fmean(float(one or 0) for one in row) for run in self.arms[arm] for row in run[what]]

    def mean(self, arm: str, what: str = "passed", *, less: str | None = None) -> Mean:
        """With an interval over problems; minus another arm's, problem by problem."""
        values = self.rates(arm, what)
        if less is None:
            return mean_of(values, self.problems(values))
        differences = [value - other for value, other in zip(values, self.rates(less, what), strict=True)]
        return mean_of(differences, self.problems(values), bounds=(-1, 1))

    def seeds(self, arm: str) -> list[float]:
        """pass@1 by seed."""
        return [fmean(map(fmean, run["passed"])) for run in self.arms[arm]]

    def selected(self, name: str) -> list[float]:
        """A column of `selection`, seed after seed."""
        return [float(value) for run in self.arms["base"] for value in run["selection"][name]]

    def solvable(self) -> list[float]:
        """Whether any of the N answers passes."""
        return [float(any(row)) for run in self.arms["base"] for row in run["passed"]]

    def difference(self, values: Sequence[float], others: Sequence[float]) -> Mean:
        """Of two columns, with its interval."""
        return mean_of([a - b for a, b in zip(values, others, strict=True)], self.problems(values), bounds=(-1, 1))

    def reward_model(self, arm: str, *path: str) -> float:
        """A number of a reward model, mean over seeds."""
        found = []
        for run in self.arms[arm]:
            value: Any = run["reward_model"]
            for key in path:
                value = value[key]
            found.append(float(value))
        return fmean(found)

    def seconds(self) -> float:
        """Wall seconds of all arms, one after the other."""
        return sum(sum(run["seconds"].values()) for runs in self.arms.values() for run in runs)

    @staticmethod
    def problems(values: Sequence[float]) -> list[int]:
        """The held-out problem of each value: they are the same for all seeds."""
        return [place % MEASURED for place in range(len(values))]


def _signed(found: Mean) -> str:
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _plain(found: Mean) -> str:
    return f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _holds(found: Mean) -> str:
    return "yes" if found.low > 0 else "no: the other way" if found.high < 0 else "not shown: 0 is in the interval"


def claims(runs: Runs) -> Table:
    """The abstract, claim by claim."""
    gain = runs.mean("codescaler", less="base")
    ahead = runs.mean("codescaler", less="tests")
    more = runs.mean("codescaler_4x", less="base")
    wider = runs.mean("codescaler_4x", less="codescaler")
    chosen = runs.difference(runs.selected("chosen"), runs.solvable())
    ratio = median(runs.selected("tests_seconds")) / median(runs.selected("reward_model_seconds"))
    rules = {
        name: runs.reward_model("base", "real", name) for name in ("longer_wins", "shorter_wins", "length_and_style")
    }
    rule = max(rules, key=lambda name: rules[name])
    above = runs.reward_model("base", "real", "reward_model") - rules[rule]
    rollout = runs.reward_model("small", "rollouts", "reward_model")
    other = runs.reward_model("off_policy", "rollouts", "reward_model")
    aligned, without = (
        runs.reward_model(arm, "robustness", "unaligned", "value") for arm in ("small", "no_unaligned")
    )
    check, shape = runs.mean("codescaler", less="no_extraction"), runs.mean("codescaler", less="no_shaping")
    near = chosen.low > -0.05
    return Table(
        ("claim", "the paper", "here, points of pass@1 (95% interval) unless said", "does it hold here?"),
        (
            ("RL on the reward improves the base policy", "+11.72, five benchmarks (v1)", _signed(gain), _holds(gain)),
            ("more than RL on passing tests", "+1.82 (v1), +1.55 (v2)", _signed(ahead), _holds(ahead)),
            (
                "problems without tests carry RL",
                "+14.64 with 44K synthetic problems (v2)",
                f"{_signed(more)} above base; {_signed(wider)} above the fewer problems",
                f"{_holds(more)}; more problems: {_holds(wider)}",
            ),
            (
                "best of N is comparable to unit tests",
                "comparable",
                f"{_signed(chosen)} problems solved, N={N}",
                "yes, within 5 points" if near else "no: tests solve more",
            ),
            (
                "at a tenth of the latency",
                "10x",
                f"{ratio:.2f}x: seconds of tests over seconds of the reward model, median problem, one core",
                "yes" if ratio >= 10 else "partly" if ratio >= 1 else "no: these tests are short, and there is no GPU",
            ),
            (
                "the reward model beats others on code",
                "+3.3 on RM-Bench's code",
                f"{100 * above:+.1f} points of pair accuracy above '{rule.replace('_', ' ')}', the best rule "
                "without a model, real programs",
                "not shown: see the model card's interval",
            ),
            ("and on general text and reasoning", "+2.7 on average", "not measured: it knows programs alone", "-"),
            (
                "pairs come from the policy's own verified rollouts",
                "part of the method",
                f"{100 * (rollout - other):+.1f} points of pair accuracy above mutants of references; pass@1 "
                f"{_signed(runs.mean('small', less='off_policy'))}",
                _holds(runs.mean("small", less="off_policy")),
            ),
            (
                "unaligned negatives (inferred from an artefact's name)",
                "part of the method",
                f"{100 * (aligned - without):+.1f} points of accuracy on unaligned pairs; pass@1 "
                f"{_signed(runs.mean('small', less='no_unaligned'))}",
                _holds(runs.mean("small", less="no_unaligned")),
            ),
            ("code is extracted and checked", "part of the method", _signed(check), _holds(check)),
            ("shaping keeps valid above invalid", "part of the method", _signed(shape), _holds(shape)),
        ),
        prose=True,
    )


def sections(runs: Runs) -> list[Section]:
    """The page."""
    count = len(runs.arms["base"])
    seeds = f"{count} seed{'s' if count > 1 else ''}, {MEASURED} held-out problems, {N} answers each"
    trained = Table(
        ("arm", "pass@1", "above base", "invalid", "pass@1 by seed"),
        [
            (
                f"{name}: {arm.says}",
                _plain(runs.mean(name)),
                "" if name == "base" else _signed(runs.mean(name, less="base")),
                _plain(runs.mean(name, "invalid")),
                ", ".join(f"{100 * rate:.1f}" for rate in runs.seeds(name)),
            )
            for name, arm in ARMS.items()
        ],
        f"Per cent; {seeds}",
    )
    everything = [fmean(values) for values in (runs.selected("chosen"), runs.solvable(), runs.rates("base"))]
    per_problem = {
        name: 1000 * median(runs.selected(f"{name}_seconds")) for name in ("reward_model", "tests", "cascade")
    }
    chosen = Table(
        ("way to choose", "problems solved", "programs run", "median ms a problem"),
        (
            ("any answer", f"{100 * everything[2]:.1f}", "0", "0"),
            ("the reward model", f"{100 * everything[0]:.1f}", "0", f"{per_problem['reward_model']:.1f}"),
            (
                "all tests",
                f"{100 * everything[1]:.1f}",
                f"{fmean(runs.selected('tests_run')):.2f}",
                f"{per_problem['tests']:.1f}",
            ),
            (
                "tests in the reward model's order, until one passes",
                f"{100 * everything[1]:.1f}",
                f"{fmean(runs.selected('cascade_run')):.2f}",
                f"{per_problem['cascade']:.1f}",
            ),
        ),
        f"One of {N} answers of the untrained policy; distinct programs",
    )
    accuracy = runs.reward_model
    models = Table(
        ("reward model", "held-out rollouts", "real programs", "unaligned", "dead code added to the wrong side"),
        [
            (
                "the embedded one" if name == "base" else ARMS[name].says,
                *(
                    f"{100 * accuracy(name, *path):.1f}"
                    for path in (
                        ("rollouts", "reward_model"),
                        ("real", "reward_model"),
                        ("robustness", "unaligned", "value"),
                        ("robustness", "edits", "dead_code", "attacked", "value"),
                    )
                ),
            )
            for name in ("base", "small", "no_unaligned", "off_policy")
        ],
        "Pairs in the right order, per cent; 'longer wins' has {:.1f} and {:.1f}".format(
            *(100 * accuracy("base", part, "longer_wins") for part in ("rollouts", "real"))
        ),
    )
    return [
        Section(
            "The abstract, claim by claim",
            "The second column is the paper's (arXiv 2602.17684; versions 1 and 2 differ), the third the miniature's: "
            "a policy of 1.2M parameters on small Python problems. Neither stands for the other.",
            [],
            [claims(runs)],
        ),
        Section(
            "Training",
            f"{STEPS} steps of {small_grpo.BATCH} answers from one start, else the quickstart's settings.",
            [],
            [trained],
            [
                Plot("pass@1 by arm", partial(draw_rates, runs)),
                Plot("reward while training", partial(draw_curves, runs)),
            ],
        ),
        Section("Choosing one of several answers", "Before any training.", [], [chosen]),
        Section("Reward models", "On held-out problems. The last three have seen equally many pairs.", [], [models]),
    ]


def draw_rates(runs: Runs, axes: Any) -> None:
    """pass@1 of each arm with its interval."""
    names = list(reversed(ARMS))
    found = [runs.mean(name) for name in names]
    spread = [[one.value - one.low for one in found], [one.high - one.value for one in found]]
    colours = ["tab:green" if name == "tests" else "tab:grey" if name == "base" else "tab:blue" for name in names]
    axes.barh(names, [one.value for one in found], xerr=spread, color=colours, capsize=3)
    axes.axvline(runs.mean("base").value, color="tab:grey", linestyle="--")
    axes.set(xlabel="pass@1, held-out compositions, by execution", xlim=(0, 1))


def draw_curves(runs: Runs, axes: Any) -> None:
    """Mean reward of each step over the seeds, smoothed over ten steps."""
    for name in ("codescaler", "codescaler_4x", "tests"):
        curve = [fmean(values) for values in zip(*(run["curve"] for run in runs.arms[name]), strict=True)]
        axes.plot([fmean(curve[max(0, step - 9) : step + 1]) for step in range(len(curve))], label=name)
    axes.set(xlabel="GRPO step", ylabel="mean reward (each on its own scale)")
    axes.legend()


def training_results(runs: Runs) -> dict[str, Any]:
    """The table of arms as shares in [0, 1]: each mean with its interval. Of `--seeds 0 1 2`: `results.json` here."""

    def rounded(found: Mean) -> list[float]:
        return [round(value, 3) for value in (found.value, found.low, found.high)]

    arms = {
        name: {
            "says": arm.says,
            "pass_at_1": rounded(runs.mean(name)),
            "above_base": [] if name == "base" else rounded(runs.mean(name, less="base")),
            "invalid": rounded(runs.mean(name, "invalid")),
            "pass_at_1_by_seed": [round(rate, 3) for rate in runs.seeds(name)],
        }
        for name, arm in ARMS.items()
    }
    return {"seeds": len(runs.arms["base"]), "problems": MEASURED, "completions": N, "steps": STEPS, "arms": arms}


def write(runs: Runs, output: Path) -> dict[str, Any]:
    """The page, the picture and the numbers."""
    write_text(output / "results.json", json.dumps(training_results(runs), indent=1) + "\n")
    made = Table(
        ("what", "command"),
        [
            ("all of it", "bash recipes/miniature/run.sh " + " ".join(sys.argv[1:])),
            ("seconds of all arms, one thread each", f"{runs.seconds():.0f}"),
        ],
        prose=True,
    )
    write_page(output / "paper.html", "The paper in miniature", sections(runs), made)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_rates(runs, left)
    draw_curves(runs, right)
    figure.savefig(output / "paper.png", dpi=120)
    return {
        "seeds": len(runs.arms["base"]),
        "pass_at_1": {name: [round(rate, 4) for rate in runs.seeds(name)] for name in ARMS},
        "above_base": {name: round(runs.mean(name, less="base").value, 4) for name in ARMS if name != "base"},
        "best_of_8": round(fmean(runs.selected("chosen")), 4),
        "oracle_8": round(fmean(runs.solvable()), 4),
        "seconds_of_all_arms": round(runs.seconds(), 1),
        "report": str(output / "paper.html"),
    }


def main() -> None:
    """Run what is not done yet, each arm in a process of its own, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=Path, default=Path("runs/paper"))
    parser.add_argument("--jobs", type=int, default=2, help="arms at a time, one thread each")
    parser.add_argument("--arm", choices=ARMS, help="one arm of the first seed, in this process")
    arguments = parser.parse_args()
    if arguments.arm:
        folder = arguments.output / str(arguments.seeds[0])
        folder.mkdir(parents=True, exist_ok=True)
        if ARMS[arguments.arm].own_reward_model and not (folder / "on_policy.jsonl").exists():
            make_pairs(folder, arguments.seeds[0])
        run_arm(arguments.arm, folder, arguments.seeds[0])
        return
    hold_to_constants(arguments.output)
    first = ["base", "small"]  # the other arms read what these write
    for names in (first[:1], first[1:], [name for name in ARMS if name not in first]):
        jobs = [(name, seed) for seed in arguments.seeds for name in names]
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(lambda job: in_its_own_process(arguments.output, *job), jobs))
    runs = Runs(
        {
            name: [
                json.loads((arguments.output / str(seed) / f"{name}.json").read_text(encoding="utf-8"))
                for seed in arguments.seeds
            ]
            for name in ARMS
        }
    )
    print(json.dumps(write(runs, arguments.output)))


def hold_to_constants(output: Path) -> None:
    """Arms of other constants do not belong on one page."""
    now = {
        "VERIFIED": VERIFIED,
        "SYNTHETIC": SYNTHETIC,
        "ROLLED_OUT": ROLLED_OUT,
        "PAIRS": PAIRS,
        "MEASURED": MEASURED,
        "STEPS": STEPS,
        "N": N,
    }
    output.mkdir(parents=True, exist_ok=True)
    file = output / "constants.json"
    if not file.exists():
        write_text(file, json.dumps(now) + "\n")
    elif (then := json.loads(file.read_text(encoding="utf-8"))) != now:
        raise SystemExit(f"{output} was begun with {then}, this file has {now}: give another --output")


def in_its_own_process(output: Path, arm: str, seed: int) -> None:
    """An arm with one thread; what is done is left as it is."""
    folder = output / str(seed)
    if (folder / f"{arm}.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--arm", arm, "--seeds", str(seed), "--output", str(output)]
    with (folder / f"{arm}.log").open("w", encoding="utf-8") as log:
        done = subprocess.run(  # noqa: S603 - this very file
            command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        raise SystemExit(f"arm {arm} of seed {seed} failed: see {log.name}")
    seconds = json.loads((folder / f"{arm}.json").read_text(encoding="utf-8"))["seconds"]
    print(f"seed {seed}, {arm}: {sum(seconds.values()):.0f} s", flush=True)


if __name__ == "__main__":
    main()

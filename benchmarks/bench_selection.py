"""One claim: the accuracy of a reward model's choice beside other choices, and the tests that a cascade saves.

    python benchmarks/bench_selection.py --data DATA --kept FOLDER
    python benchmarks/bench_selection.py --data DATA --kept FOLDER --held-out --model runs/smollm2/merged

Two sets of candidates with verdicts by execution:

- HumanEval, 100 samples a problem of CodeGen-Mono-16B: DATA holds `humaneval/HumanEval.jsonl.gz` (openai/human-eval),
  `codet/humaneval_codegen16B_labeled_*.jsonl` (microsoft/CodeT, labelled by running HumanEval's tests). Four fifths of
  these problems gave pairs to the embedded reward model's training, so the last fifth is reported alone as well.
- The miniature's held-out problems, 16 samples of the embedded policy each at temperature 1, verified here.

Printed: curves of the share of problems solved for N = 1 to 100 (unbiased over all N-subsets; the two choices that
count duplicates: means over random orders); the cascade's accuracy against tests executed, its confidence cross-fitted
on other problems; adaptive sampling beside a fixed N of the same mean. Several models stand in one table of curves.
Scores are kept in FOLDER, and an interrupted run resumes. The last line of stdout is JSON. Exit code 1: on the
miniature, no cascade keeps 95% of the accuracy of all tests with 40% of the programs run.
"""

import argparse
import json
import math
import platform
import sys
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any
from zlib import crc32

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from codescaler_plugin import load_scorer
from codescaler_plugin.builtin import HELD_OUT_PROBLEMS, POLICY
from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.evaluation.best_of_n import best_of
from codescaler_plugin.evaluation.policy import verify_completions
from codescaler_plugin.evaluation.score_file import Row, score_rows
from codescaler_plugin.extraction import extract_all
from codescaler_plugin.extraction.fingerprint import distinct_programs
from codescaler_plugin.generation.local import sample_completions
from codescaler_plugin.intervals import pass_at_k
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.records import Judgement
from codescaler_plugin.selection.adaptive import expected_gain
from codescaler_plugin.selection.calibration import cross_fitted
from codescaler_plugin.selection.planning import Labelled, first_margins, is_right, measure_plans
from codescaler_plugin.selection.ranking import chosen, rank

SHOWN = (1, 2, 4, 8, 16, 32, 64, 100)
ORDERS = 20  # random orders of a problem's candidates, for what no closed form gives
SAMPLES, FIRST = 16, 8  # of the miniature: drawn, and given to the cascade
ABSTAIN = (0.3, 0.6, 0.8, 0.85, 0.9, 0.95)
KEPT, RUN = 0.95, 0.4  # the bar: share of the accuracy of all tests, with this share of the programs run
LEAST, STEP = 4, 2  # of adaptive sampling

Group = tuple[list[Judgement], list[bool]]
"""A problem's candidates as judged, and whether each passes."""


def humaneval(data: Path) -> list[tuple[str, str, list[str], list[bool]]]:
    """Problem id, problem, completions that continue it, verdicts."""
    texts = {problem.id: problem.text for problem in read_problems(data / "humaneval" / "HumanEval.jsonl.gz")}
    tasks: dict[str, tuple[str, str, list[str], list[bool]]] = {}
    for part in ("0_20", "20_100"):
        path = data / "codet" / f"humaneval_codegen16B_labeled_{part}.jsonl"
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            task = row["task_id"]
            _, text, codes, passed = tasks.setdefault(task, (task, texts[task], [], []))
            codes += [text + completion for completion in row["completions"]]
            passed += [result == "P" for result in row["results"]]
    return list(tasks.values())


def miniature(kept: Path) -> list[tuple[str, str, list[str], list[bool]]]:
    """Problem id, problem, completions of the embedded policy, verdicts; sampled and verified once."""
    file = kept / "miniature.json"
    if not file.exists():
        torch.manual_seed(0)
        problems = list(read_problems(HELD_OUT_PROBLEMS))
        policy = pretrained(AutoModelForCausalLM, POLICY, dtype=torch.float32).eval()
        texts = [problem.text for problem in problems]
        sampled = sample_completions(policy, pretrained(AutoTokenizer, POLICY), texts, n=SAMPLES)
        verified = verify_completions(sampled, problems)
        ids = [problem.id for problem in problems]
        rows = zip(ids, texts, verified.completions, verified.passed, strict=True)
        file.write_text(json.dumps(list(rows)), encoding="utf-8")
    return [tuple(row) for row in json.loads(file.read_text(encoding="utf-8"))]


def judged(rows: Sequence[Any], model: str, extraction: str, output: Path) -> list[Group]:
    """The candidates with their scores, which are kept in `output`."""
    extracted = [extract_all(completions, extraction=extraction) for _, _, completions, _ in rows]
    valid = [[extraction.code for extraction in extractions if extraction.code] for extractions in extracted]
    scored = [
        Row({"problem_id": row[0]}, tuple((row[1], code) for code in codes))
        for row, codes in zip(rows, valid, strict=True)
        if codes
    ]
    scores = iter(score_rows(scored, load_scorer(model), output, model=model))
    groups = []
    for row, extractions, codes in zip(rows, extracted, valid, strict=True):
        own = iter(next(scores) if codes else [])
        judgements = []
        for extraction_ in extractions:
            score = next(own) if extraction_.code else None
            judgements.append(Judgement(score, score, extraction_.status, extraction_.code))
        groups.append((judgements, row[3]))
    return groups


def curves(groups: Sequence[Group], max_n: int) -> dict[str, list[float]]:
    """Share of problems solved by each choice among N = 1 to `max_n`."""
    shares: dict[str, list[list[float]]] = {}
    rng = Random(0)
    for judgements, passed in groups:
        scores = [-math.inf if judgement.score is None else judgement.score for judgement in judgements]
        lengths = [len(judgement.code) for judgement in judgements]
        keys = {
            "random": [0.0] * len(scores),
            "longest": [length or -math.inf for length in lengths],
            "shortest": [-length if length else -math.inf for length in lengths],
            "reward model": scores,
        }
        counts = range(1, max_n + 1)
        for name, key in keys.items():
            shares.setdefault(name, []).append([best_of(key, passed, count) for count in counts])
        shares.setdefault("oracle", []).append([pass_at_k(passed, count) for count in counts])
        programs = distinct_programs(judgement.code for judgement in judgements if judgement.code)
        program_of = [programs.get(judgement.code, -1) for judgement in judgements]
        orders = [rng.sample(range(len(scores)), max_n) for _ in range(ORDERS)]
        flat = [0.0 if program >= 0 else -math.inf for program in program_of]
        for name, key in (("majority of duplicates", flat), ("reward model x duplicates", scores)):
            runs = [_counted(order, program_of, key, passed) for order in orders]
            shares.setdefault(name, []).append([fmean(column) for column in zip(*runs, strict=True)])
    return {name: [fmean(column) for column in zip(*rows, strict=True)] for name, rows in shares.items()}


def side_by_side(by_model: dict[str, dict[str, list[float]]]) -> dict[str, list[float]]:
    """Curves of several models in one table: choices without a model once, the oracle last."""
    table: dict[str, list[float]] = {}
    for model, shares in by_model.items():
        table |= {choice.replace("reward model", model): curve for choice, curve in shares.items()}
    oracle = table.pop("oracle")
    return {**table, "oracle": oracle}


def _counted(
    order: Sequence[int], program_of: Sequence[int], scores: Sequence[float], passed: Sequence[bool]
) -> list[bool]:
    """Verdicts on the best by score + log(duplicates), after each candidate of an order; the earlier wins a tie."""
    duplicates: dict[int, int] = {}
    leader: dict[int, int] = {}
    best, winner = -math.inf, order[0]
    outcome = []
    for index in order:
        program = program_of[index]
        if program >= 0 and scores[index] > -math.inf:
            duplicates[program] = duplicates.get(program, 0) + 1
            if program not in leader or scores[index] > scores[leader[program]]:
                leader[program] = index
            rank_score = scores[leader[program]] + math.log(duplicates[program])
            if rank_score > best:
                best, winner = rank_score, leader[program]
        outcome.append(passed[winner])
    return outcome


def labelled(groups: Sequence[Group], count: int, self_consistency: float) -> list[Labelled]:
    """The first `count` candidates of each problem, ranked."""
    return [
        (chosen(rank([""] * count, judgements[:count], self_consistency=self_consistency)), passed[:count])
        for judgements, passed in groups
    ]


def cascades(groups: Sequence[Group], count: int, self_consistency: float) -> dict[str, Any]:
    """Accuracy against programs executed. All tests: each distinct program is run."""
    ranked = labelled(groups, count, self_consistency)
    everything = fmean(any(passed) for _, passed in ranked)
    programs = fmean(len(selection.programs) for selection, _ in ranked)
    strategies = [
        {
            "strategy": plan.strategy,
            "target": plan.target,
            "accuracy": round(plan.accuracy, 4),
            "of_all_tests_accuracy": round(plan.accuracy / everything, 4),
            "programs_run": round(plan.executions, 3),
            "of_distinct_programs": round(plan.executions / programs, 4),
            "of_candidates": round(plan.executions / count, 4),
        }
        for plan in sorted(measure_plans(ranked), key=lambda plan: (plan.strategy, plan.target or 0.0))
    ]
    return {
        "candidates": count,
        "self_consistency": self_consistency,
        "all_tests_accuracy": round(everything, 4),
        "distinct_programs": round(programs, 3),
        "strategies": strategies,
    }


def missed(results: Sequence[dict[str, Any]]) -> str | None:
    """A sentence if no cascade in `cascades` of the miniature reaches the bar; else None."""
    rows = [row for result in results for row in result["strategies"] if row["strategy"] == "cascade"]
    frugal = [row["of_all_tests_accuracy"] for row in rows if row["of_distinct_programs"] <= RUN]
    best = max(frugal, default=None)
    if best is not None and best >= KEPT:
        return None
    result = "none runs so few" if best is None else f"the best keeps {best:.1%}"
    return (
        f"on the miniature no cascade keeps {KEPT:.0%} of the accuracy of all tests with at most {RUN:.0%} of the "
        f"programs run: {result}"
    )


def abstention(groups: Sequence[Group], count: int, self_consistency: float) -> list[dict[str, float]]:
    """Precision of choices at a probability, beside the promised precision; calibrated on other problems."""
    ranked = labelled(groups, count, self_consistency)
    problems = [number for number, (selection, _) in enumerate(ranked) if selection.margin is not None]
    margins, right = first_margins(ranked)
    probabilities = cross_fitted(margins, right, problems, method="platt")
    rows = []
    for threshold in ABSTAIN:
        taken = [
            (probability, outcome)
            for probability, outcome in zip(probabilities, right, strict=True)
            if probability >= threshold
        ]
        if len(taken) < 10:
            continue
        share, size = fmean(outcome for _, outcome in taken), len(taken)
        middle = (share + 1.92 / size) / (1 + 3.84 / size)  # Wilson's 95% interval
        half = 1.96 / (1 + 3.84 / size) * math.sqrt(share * (1 - share) / size + 0.96 / size**2)
        rows.append(
            {
                "abstain_below": threshold,
                "answered": round(size / len(ranked), 3),
                "promised": round(fmean(probability for probability, _ in taken), 3),
                "right": round(share, 3),
                "low": round(middle - half, 3),
                "high": round(middle + half, 3),
            }
        )
    return rows


def adaptive(
    groups: Sequence[Group], max_samples: int, costs: Sequence[float], self_consistency: float
) -> list[dict[str, float]]:
    """Adaptive sampling, and the accuracy of the fixed numbers around its mean, interpolated."""
    rng = Random(0)
    trials = []
    for judgements, passed in groups:
        for _ in range(max(1, 640 // len(groups))):
            order = rng.sample(range(len(passed)), max_samples)
            trials.append(([judgements[index] for index in order], [passed[index] for index in order]))

    def after(trial: Group, count: int) -> Labelled:
        return labelled([trial], count, self_consistency)[0]

    steps = [*range(LEAST, max_samples, STEP), max_samples]
    ranked = [{count: after(trial, count) for count in steps} for trial in trials]
    fixed = {count: fmean(is_right(*at[count]) for at in ranked) for count in steps}
    rows = []
    for cost in costs:
        taken, right = [], []
        for (judgements, _), at in zip(trials, ranked, strict=True):
            for count in steps:
                scores = [judgement.score for judgement in judgements[:count]]
                gain = expected_gain(scores, at[count][0].margin or 0.0)
                if gain is not None and gain < cost:
                    break
            taken.append(count)
            right.append(is_right(*at[count]))
        mean = fmean(taken)
        below = max(count for count in steps if count <= mean)
        above = min(count for count in steps if count >= mean)
        share = 0.0 if above == below else (mean - below) / (above - below)
        rows.append(
            {
                "cost": cost,
                "mean_samples": round(mean, 2),
                "accuracy": round(fmean(right), 4),
                "fixed_n_of_the_same_mean": round(fixed[below] + share * (fixed[above] - fixed[below]), 4),
            }
        )
    return rows


def print_curves(title: str, shares: dict[str, list[float]]) -> None:
    """Print a line for each choice, a column for each N."""
    columns = [count for count in SHOWN if count <= len(shares["random"])]
    width = max(24, *map(len, shares))
    print(f"\n{title}: share of problems solved\n{'N':>{width}}" + "".join(f"{count:>7}" for count in columns))
    for name, curve in shares.items():
        print(f"{name:>{width}}" + "".join(f"{curve[count - 1]:>7.3f}" for count in columns))


def print_cascades(title: str, result: dict[str, Any]) -> None:
    """Print a line for each strategy."""
    print(
        f"\n{title}, N = {result['candidates']}, self_consistency {result['self_consistency']:g}: all tests solve "
        f"{result['all_tests_accuracy']:.3f} with {result['distinct_programs']:.2f} programs run\n"
        f"{'strategy':>10}{'target':>8}{'solved':>8}{'of all tests':>14}{'programs run':>14}{'of distinct':>13}"
    )
    for row in result["strategies"]:
        target = "" if row["target"] is None else "always" if row["target"] > 1 else f"{row['target']:g}"
        print(
            f"{row['strategy']:>10}{target:>8}{row['accuracy']:>8.3f}{row['of_all_tests_accuracy']:>14.1%}"
            f"{row['programs_run']:>14.2f}{row['of_distinct_programs']:>13.1%}"
        )


def print_rows(rows: Sequence[dict[str, float]]) -> None:
    """Print a line for each row."""
    for row in rows:
        print("  " + ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in row.items()))


def spent(title: str, groups: Sequence[Group], counts: Sequence[int]) -> dict[str, Any]:
    """Cascades, abstention and adaptive sampling of one model, printed as they come."""
    results: list[dict[str, Any]] = []
    for count in counts:
        for self_consistency in (0.0, 1.0):
            results.append(cascades(groups, count, self_consistency))
            print_cascades(title, results[-1])
            results[-1]["abstention"] = abstention(groups, count, self_consistency)
            print("chosen only where calibrated as right, with the 95% interval of the precision:")
            print_rows(results[-1]["abstention"])
    sampled = adaptive(groups, 16, (0.0003, 0.001, 0.003, 0.01), 1.0)
    print(f"\n{title}: adaptive sampling, at most 16, self_consistency 1")
    print_rows(sampled)
    return {"cascades": results, "adaptive": sampled}


def main() -> None:
    """Print the tables, then the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="without it: the miniature alone")
    parser.add_argument("--kept", type=Path, required=True, help="folder for samples and scores")
    parser.add_argument("--model", action="append", help="reward model, as for load_scorer; repeatable; else builtin")
    parser.add_argument(
        "--held-out", action="store_true", help="of HumanEval the last fifth alone: a large model takes hours for all"
    )
    options = parser.parse_args()
    models = list(dict.fromkeys(options.model or ["builtin"]))
    options.kept.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    result: dict[str, Any] = {"benchmark": "selection", "models": models}

    def scored(title: str, rows: Sequence[Any], extraction: str) -> dict[str, list[Group]]:
        names = {model: "".join(letter if letter.isalnum() else "-" for letter in model) for model in models}
        return {
            model: judged(rows, model, extraction, options.kept / f"{title}-{names[model]}.jsonl") for model in models
        }

    sets: list[tuple[str, dict[str, list[Group]], int, tuple[int, ...]]] = [
        ("miniature", scored("miniature", miniature(options.kept), "single"), SAMPLES, (FIRST,))
    ]
    if options.data is not None:
        rows = humaneval(options.data)
        apart = [crc32(row[0].encode()) % 5 == 0 for row in rows]
        if options.held_out:
            held_out = scored("humaneval-held-out", list(compress(rows, apart)), "bare")
        else:
            every = scored("humaneval", rows, "bare")
            held_out = {model: list(compress(groups, apart)) for model, groups in every.items()}
            sets += [("HumanEval", every, 100, (16, 100))]
        sets += [("HumanEval, a fifth held out", held_out, 100, (16, 100) if options.held_out else ())]
    for title, groups, max_n, counts in sets:
        problems = len(groups[models[0]])
        shares = side_by_side({model: curves(own, max_n) for model, own in groups.items()})
        print_curves(f"{title}, {problems} problems", shares)
        of_set: dict[str, Any] = {
            "problems": problems,
            "curves": {choice: [round(share, 4) for share in curve] for choice, curve in shares.items()},
        }
        if counts:
            of_set["by_model"] = {model: spent(f"{title}, {model}", own, counts) for model, own in groups.items()}
        result[title] = of_set
    result |= {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
    print(json.dumps(result))
    sys.exit(missed([row for own in result["miniature"]["by_model"].values() for row in own["cascades"]]))


if __name__ == "__main__":
    main()

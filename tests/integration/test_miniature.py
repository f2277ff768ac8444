"""The miniature: its generator is right, its split holds, and one command walks the whole path."""

import gzip
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.processes import untraced

RECIPE = Path(__file__).parents[2] / "recipes" / "miniature"


@pytest.fixture(autouse=True)
def recipe_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPE))


def draw(count, *, held_out=False, seed=0):
    from problems import draw_problems

    stream = draw_problems(Random(seed), held_out=held_out)
    return [next(stream) for _ in range(count)]


def run(code, argument):
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    return namespace["solve"](argument)


def test_every_style_gives_the_reference_answer_on_every_hidden_test():
    from problems import STYLES, solve

    for problem in draw(300):
        for style in STYLES:
            code = solve(problem.program, style)
            assert all(run(code, argument) == expected for argument, expected in problem.tests), code


def test_mutants_change_the_program_and_mostly_fail_the_tests():
    from problems import mutate, solve

    rng, caught = Random(1), 0
    problems = draw(300)
    for problem in problems:
        mutant = mutate(problem.program, rng)
        assert mutant != problem.program
        code = solve(mutant, "steps")
        caught += any(run(code, argument) != expected for argument, expected in problem.tests)
    assert caught > 0.8 * len(problems)


def test_mutants_meaning_is_their_codes_meaning():
    from problems import STYLES, mutate, solve

    rng = Random(2)
    for problem in draw(300):
        mutant = mutate(problem.program, rng)
        code = solve(mutant, rng.choice(STYLES))
        assert all(run(code, argument) == mutant.run(argument) for argument, _ in problem.tests), code


def test_no_held_out_composition_is_on_the_training_side():
    from problems import is_held_out

    train = {problem.program.composition for problem in draw(3000)}
    held_out = {problem.program.composition for problem in draw(1000, held_out=True)}
    assert not train & held_out
    assert all(map(is_held_out, held_out))
    assert min(name.count("|") for name in held_out) >= 2
    assert {name.count("|") for name in train} == {1, 2, 3, 4}


def test_problems_of_four_operations_alone_number_above_a_hundred_thousand():
    # Of n draws from N equally likely items n(n-1)/2N pairs are expected to collide; unequal ones collide more often,
    # so the estimate of N by collisions is a lower bound.
    texts = [problem.problem for problem in draw(12_000) if problem.program.composition.count("|") == 4]
    collisions = len(texts) - len(set(texts))
    assert len(texts) ** 2 / 2 / max(collisions, 1) > 100_000


def test_the_same_seed_draws_the_same_problems():
    assert [one.problem for one in draw(50, seed=5)] == [one.problem for one in draw(50, seed=5)]


def test_demonstrations_hold_the_stated_share_of_invalid_completions():
    from corpus import MALFORMED_SHARE, draw_demonstrations

    from codescaler_plugin import extract_code

    demonstrations = draw_demonstrations(Random(0), 2000)
    invalid = sum(extract_code(one.completion).status != "ok" for one in demonstrations) / 2000
    assert invalid == pytest.approx(MALFORMED_SHARE, abs=0.02)


def test_near_miss_pairs_are_right_and_wrong_by_execution():
    from pairs import near_miss_pairs
    from problems import draw_problems

    from codescaler_plugin.execution.sandbox import run_tests

    pairs = near_miss_pairs(60, Random(3))
    tests = {}
    stream = draw_problems(Random(3), held_out=False)
    while any(pair.problem not in tests for pair in pairs):
        problem = next(stream)
        tests[problem.problem] = problem.record()
        if len(tests) > 20_000:
            break
    known = [pair for pair in pairs if pair.problem in tests]
    right = run_tests([(pair.chosen, tests[pair.problem]) for pair in known])
    wrong = run_tests([(pair.rejected, tests[pair.problem]) for pair in known])
    assert len(known) > 10
    assert all(verdict.passed for verdict in right)
    assert not any(verdict.passed for verdict in wrong)


def test_embedded_reward_model_ranks_near_misses_far_above_chance():
    from measure import accuracies
    from pairs import near_miss_pairs

    from codescaler_plugin import load_scorer

    pairs = [pair for pair in near_miss_pairs(400, Random(11)) if pair.kind == "near_miss"]
    assert accuracies(pairs, load_scorer("builtin"))["reward_model"] > 0.85


def test_real_pairs_are_split_by_problem_and_all_parse():
    with gzip.open(RECIPE / "data" / "real_pairs.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    sides = {side: {row["problem_id"] for row in rows if row["split"] == side} for side in ("train", "held_out")}
    assert not sides["train"] & sides["held_out"]
    assert len(sides["held_out"]) > 50
    assert all(row["split"] in sides for row in rows)
    for row in rows:
        compile(row["chosen"], "chosen", "exec")
        compile(row["rejected"], "rejected", "exec")
        assert row["chosen"] != row["rejected"]


def test_one_command_walks_the_whole_path(tmp_path):
    command = [sys.executable, str(RECIPE / "run.py"), "--steps-scale", "0.004", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=230, env=untraced())
    assert done.returncode == 0, done.stderr[-2000:]
    numbers = json.loads(done.stdout.splitlines()[-1])
    assert set(numbers["seconds"]) == {
        "supervised start",
        "rollouts, verification and pairs",
        "reward model",
        "measurement",
    }
    assert numbers["real_pairs"]["pairs"] == 8
    assert numbers["pairs"]["near_miss"] > 0
    assert (tmp_path / "reward_model" / "model.safetensors").exists()


def test_the_papers_claims_are_written_from_what_the_arms_measured(tmp_path, monkeypatch):
    import paper

    from codescaler_plugin.integrations.trl import small_grpo

    small = {"VERIFIED": 8, "SYNTHETIC": 16, "ROLLED_OUT": 40, "PAIRS": 32, "MEASURED": 12, "STEPS": 1}
    for name, value in small.items():
        monkeypatch.setattr(paper, name, value)
    arms = {name: replace(arm, problems=min(arm.problems, 16)) for name, arm in paper.ARMS.items()}
    monkeypatch.setattr(paper, "ARMS", arms)
    monkeypatch.setattr(small_grpo, "BATCH", 16)
    paper.make_pairs(tmp_path, 0)
    for arm in ("base", "tests", "no_extraction", "off_policy"):
        paper.run_arm(arm, tmp_path, 0)
    found = {
        name: json.loads((tmp_path / f"{name}.json").read_text())
        for name in arms
        if (tmp_path / f"{name}.json").exists()
    }
    assert len(found) == 4
    runs = paper.Runs({name: [found.get(name, found["off_policy"])] for name in arms})

    numbers = paper.write(runs, tmp_path)

    rates = [sum(row) / len(row) for row in found["tests"]["passed"]]
    assert numbers["pass_at_1"]["tests"] == [round(sum(rates) / len(rates), 4)]
    assert numbers["oracle_8"] == round(sum(map(any, found["base"]["passed"])) / 12, 4)
    assert set(found["tests"]["curve"]) <= {n / 16 for n in range(17)}  # a share of passes
    [value, low, high] = json.loads((tmp_path / "results.json").read_text())["arms"]["tests"]["pass_at_1"]
    assert value == pytest.approx(sum(rates) / len(rates), abs=6e-4)
    assert low <= value <= high
    page = (tmp_path / "paper.md").read_text()
    assert page.count("| does it hold here? |") == 1
    assert all(arm.says in page for arm in arms.values())
    assert (tmp_path / "paper.png").stat().st_size > 10_000


def test_the_numbers_kept_beside_the_recipe_are_those_of_its_table_and_of_the_readme():
    import paper

    kept = json.loads((RECIPE / "results.json").read_text(encoding="utf-8"))
    assert {name: arm["says"] for name, arm in kept["arms"].items()} == {
        name: arm.says for name, arm in paper.ARMS.items()
    }
    assert (kept["problems"], kept["completions"], kept["steps"]) == (paper.MEASURED, paper.N, paper.STEPS)

    def per_cent(interval, sign=""):
        value, low, high = (f"{100 * number:{sign}.1f}" for number in interval)
        return f"{value} ({low} to {high})"

    table = (RECIPE / "README.md").read_text(encoding="utf-8")
    for name, arm in kept["arms"].items():
        gain = per_cent(arm["above_base"], "+") if arm["above_base"] else ""
        seeds = ", ".join(f"{100 * rate:.1f}" for rate in arm["pass_at_1_by_seed"])
        cells = (f"{name}: {arm['says']}", per_cent(arm["pass_at_1"]), gain, per_cent(arm["invalid"]), seeds)
        assert f"| {' | '.join(cells)} |" in table

    readme = (RECIPE.parents[1] / "README.md").read_text(encoding="utf-8")
    gains = re.findall(r"\+(0\.\d{3}) \(\+(0\.\d{3}) to \+(0\.\d{3})\)", readme)
    assert gains
    kept_gains = [arm["above_base"] for arm in kept["arms"].values()]
    assert [gain for gain in gains if [float(number) for number in gain] not in kept_gains] == []


def test_arms_of_other_constants_are_not_put_on_one_page(tmp_path, monkeypatch):
    import paper

    paper.hold_to_constants(tmp_path)
    paper.hold_to_constants(tmp_path)
    monkeypatch.setattr(paper, "STEPS", paper.STEPS + 1)
    with pytest.raises(SystemExit, match="give another --output"):
        paper.hold_to_constants(tmp_path)

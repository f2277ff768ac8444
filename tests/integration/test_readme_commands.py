"""The README's commands, run as written: only models, addresses and the names of MODEL and OTHER are put in."""

import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from codescaler_plugin.builtin import REWARD_MODEL
from codescaler_plugin.extraction.blocks import find_blocks
from tests.doubles import chat
from tests.processes import untraced

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = [block.text for block in find_blocks(README) if block.info == "bash"]
COMMANDS = [line for text in SHELL for line in text.splitlines() if line.startswith("codescaler ")]
SLICE = ROOT / "recipes" / "data" / "slice"
ANSWER = "```python\nprint(int(input()) + 1)\n```"
FEWER = 3  # lines were skipped, or fewer pairs than wanted; said on stderr

pytestmark = pytest.mark.timeout(400)


def run(command, folder, **put_in):
    for word, value in {"MODEL": "builtin", "OTHER": "other", **put_in}.items():
        command = re.sub(rf"\b{re.escape(word)}\b", value, command)
    environment = {name: value for name, value in untraced().items() if not name.startswith("CODESCALER_")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "80", "HF_HUB_OFFLINE": "1"}  # fmt: skip
    environment |= {"CODESCALER_MODEL": "builtin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, FEWER), f"{command}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def named(*words):
    found = [command for command in COMMANDS if command.split()[1 : 1 + len(words)] == list(words)]
    assert found, f"no command of the README begins with codescaler {' '.join(words)}"
    return found


def write(file, *rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def slice_of(name, count):
    with gzip.open(SLICE / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    tasks = list(dict.fromkeys(row["task_id"] for row in rows))[:count]
    return [row for row in rows if row["task_id"] in tasks]


def test_scoring_choosing_and_generation(tmp_path, serve):
    policy = serve(chat(lambda _: ANSWER)).url
    problem = {"problem": "Read n, print n + 1.", "tests": [{"input": "1", "output": "2"}], "problem_id": "plus"}
    wrong = "```python\nprint(int(input()) + 2)\n```"
    write(tmp_path / "answers.jsonl", *({**problem, "completion": text} for text in (ANSWER, wrong, "no code")))
    write(tmp_path / "candidates.jsonl", {**problem, "completions": [wrong, ANSWER, wrong]})
    write(tmp_path / "tests.jsonl", problem)
    write(tmp_path / "problems.jsonl", problem)

    [score] = named("score")
    run(score, tmp_path)
    assert "codescaler extract answers.jsonl" in README
    run("codescaler extract answers.jsonl", tmp_path)
    assert [row["status"] for row in read(tmp_path / "judged.jsonl")] == ["ok", "ok", "no_block"]
    ranking, tests = named("rank")
    run(ranking, tmp_path)
    [ranked] = read(tmp_path / "ranked.jsonl")
    assert len(ranked["ranked"]) == 3
    assert "candidate 1 passes all tests" in run(tests, tmp_path)
    [chosen] = [
        json.loads(line)
        for line in run(named("sample")[0], tmp_path, **{"http://localhost:8000": policy}).splitlines()
    ]
    assert chosen["code"].strip() == "print(int(input()) + 1)"

    calls = {"input": ["1\n"], "output": ["2\n"]}
    contest = {"public_tests": calls, "private_tests": {"input": [], "output": []}, "generated_tests": calls}
    (tmp_path / "codecontests.json").write_text(json.dumps([{"name": "1_A", "description": "Add one.", **contest}]))
    write(tmp_path / "mbpp.jsonl", {"text": "Add one.", "code": "def add(a):\n    return a + 1", "task_id": 1, "test_setup_code": "", "test_list": ["assert add(1) == 2"], "challenge_test_list": []})  # fmt: skip
    cases = json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}])
    row = {"question_content": "Add one.", "question_id": "a", "public_test_cases": cases, "private_test_cases": "[]", "metadata": "{}", "starter_code": ""}  # fmt: skip
    write(tmp_path / "livecodebench.jsonl", row)
    [command] = named("evaluate", "generation")
    report = json.loads(run(command, tmp_path, **{"http://localhost:8000": policy}).splitlines()[-1])
    rates = {name: found["average"]["value"] for name, found in report["benchmarks"].items()}
    assert rates == {"livecodebench": 1.0, "codecontests": 1.0, "mbpp": 0.0}


def test_from_rollouts_to_pairs_to_a_report(tmp_path):
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("matplotlib")
    rollouts = [{"prompt": row["prompt"], "completion": row["completion"]} for row in slice_of("rollouts", 8)]
    (tmp_path / "runs" / "grpo" / "completions").mkdir(parents=True)
    datasets.Dataset.from_list(rollouts).to_parquet(tmp_path / "runs" / "grpo" / "completions" / "completions_00001.parquet")  # fmt: skip
    problems = slice_of("problems", 8)
    write(tmp_path / "problems.jsonl", *problems)
    with gzip.open(tmp_path / "HumanEval.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps(problems[0]) + "\n")

    for name in ("verify", "mine", "augment"):
        [command] = named(name)
        run(command, tmp_path)
    pairs = read(tmp_path / "pairs.jsonl")
    assert {"rollout", "unaligned"} <= {pair["kind"] for pair in pairs}
    assert problems[0]["task_id"] not in {pair["problem_id"] for pair in pairs}
    assert (tmp_path / "card" / "README.md").exists()

    write(tmp_path / "held_out.jsonl", *pairs[:40])
    styles = {side: [f"def f(n):\n    return n + {n} # {side}" for n in range(3)] for side in ("chosen", "rejected")}
    (tmp_path / "code_filtered.json").write_text(json.dumps([{"id": 1, "prompt": "Add.", "language": "python", **styles}]))  # fmt: skip
    evaluations = [command for command in named("evaluate") if "generation" not in command]
    assert len(evaluations) == 5
    for command in [*named("doctor"), *evaluations]:
        run(command, tmp_path)
    shutil.copytree(REWARD_MODEL, tmp_path / "other")
    run(evaluations[0], tmp_path, MODEL="other")
    [command] = named("report")
    run(command, tmp_path)
    assert (tmp_path / "report.html").stat().st_size > 50_000


def test_the_server_is_up_when_the_next_line_runs(tmp_path):
    pytest.importorskip("fastapi")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    [block] = [text for text in SHELL if "codescaler serve --port" in text]
    *lines, _ = block.splitlines()  # the last starts OpenRLHF on a cluster
    ask = "curl -fsS -H 'Content-Type: application/json' http://127.0.0.1:8000/get_reward -d "
    body = {"query": ["Add one." + ANSWER], "prompts": ["Add one."], "labels": ["{}"]}
    lines += ["echo", f"{ask} '{json.dumps(body)}'", "kill %1", "wait"]
    command = "\n".join(["set -m", *lines]).replace("LARK-Lab/CodeScaler-8B", "builtin").replace("8000", port)
    out = run(command, tmp_path)
    assert json.loads(out.splitlines()[-1])["rewards"][0] > 0


def test_every_other_command_of_the_readme_is_run_elsewhere():
    ran = {"score", "extract", "rank", "sample", "verify", "mine", "augment", "doctor", "evaluate", "report", "serve"}
    assert {command.split()[1] for command in COMMANDS} - ran == {"bench"}  # tests/cli/test_bench.py

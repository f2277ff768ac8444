"""The code blocks of README.md and docs/, run as written: models, addresses and the names MODEL and OTHER are put in.

The blocks of a page run in their order in a folder that holds the files which they name. Of what is run, only the
number of steps and tokens is cut.
"""

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
import yaml

from codescaler_plugin import CallTest, Judgement, StdioTest, read_problems
from codescaler_plugin.builtin import POLICY, REWARD_MODEL
from codescaler_plugin.config import CodeScalerConfig
from tests.doubles import chat
from tests.pages import PAGES, ROOT, blocks_of, code_of, name_of
from tests.processes import untraced

SLICE = ROOT / "recipes" / "data" / "slice"
ANSWER = "```python\nprint(int(input()) + 1)\n```"
WRONG = "```python\nprint(int(input()) + 2)\n```"
FEWER = 3  # lines were skipped, or fewer pairs than wanted; said on stderr
SET_UP = re.compile(r"^(?:pip|python3 -m venv) .*\n?", re.MULTILINE)  # `.ci/first_day` does it
START = (  # a command that fails ends the script; what was started in the background ends with it
    "set -mE",
    "trap 'jobs=$(jobs -p); [ -z \"$jobs\" ] || kill $jobs; wait' EXIT",
    f"trap 'code=$?; [ $code = {FEWER} ] || exit $code' ERR",
)
PUT_IN = {
    "LARK-Lab/CodeScaler-8B": "builtin",
    "LARK-Lab/CodeScaler-1.7B": "builtin",
    "Skywork/Skywork-Reward-V2-Qwen3-1.7B": str(REWARD_MODEL),
    "Qwen/Qwen3-0.6B": str(POLICY),
    "Qwen/Qwen3-1.7B": str(POLICY),
    "codescaler quickstart": "codescaler quickstart --steps 2",
}

pytestmark = pytest.mark.timeout(600)


def environment() -> dict[str, str]:
    ours = {name: value for name, value in untraced().items() if not name.startswith("CODESCALER_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**ours, "PATH": path, "COLUMNS": "80", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CODESCALER_MODEL": "builtin"}  # fmt: skip


def put_in(text, **more):
    for name, value in {**PUT_IN, **more}.items():
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", value, text)
    return text


def run(script, folder):
    """What a script prints."""
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment(), capture_output=True, text=True, timeout=550
    )
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def write(file, *rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def printed(out):
    """The JSON objects among the lines that were printed."""
    return [json.loads(line) for line in out.splitlines() if line.startswith('{"')]


def slice_of(name, count):
    with gzip.open(SLICE / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    tasks = list(dict.fromkeys(row["task_id"] for row in rows))[:count]
    return [row for row in rows if row["task_id"] in tasks]


PROBLEM = {"problem": "Read n, print n + 1.", "tests": [{"input": "1", "output": "2"}], "problem_id": "plus"}
PAIRS = [
    {
        "problem": f"Add {n} to n.",
        "chosen": f"def f(n):\n    return n + {n}",
        "rejected": f"def f(n):\n    return n - {n}",
    }
    for n in range(1, 9)
]


def fill(folder):
    """The files that pages name."""
    write(folder / "answers.jsonl", *({**PROBLEM, "completion": text} for text in (ANSWER, WRONG, "no code")))
    (folder / "questions.csv").write_text("task,reply\nWrite a program.,no code\n")
    write(folder / "prompts.jsonl", *({"prompt": f"Print {n}."} for n in range(4)))
    write(folder / "candidates.jsonl", {**PROBLEM, "completions": [WRONG, ANSWER, WRONG]})
    verdicts = [(f"Read n, print n + {n}.", n, passed) for n in range(1, 41) for passed in (True, False)]
    write(folder / "verdicts.jsonl", *({"problem": text, "problem_id": f"plus-{n}", "passed": passed, "completion": (ANSWER if passed else WRONG).replace(")\n", f")  # {n}\n")} for text, n, passed in verdicts))  # fmt: skip
    for name in ("tests", "problems", "audit"):
        write(folder / f"{name}.jsonl", PROBLEM)
    for name in ("pairs", "held_out"):
        write(folder / f"{name}.jsonl", *PAIRS)
    calls = {"input": ["1\n"], "output": ["2\n"]}
    contest = {"public_tests": calls, "private_tests": {"input": [], "output": []}, "generated_tests": calls}
    (folder / "codecontests.json").write_text(json.dumps([{"name": "1_A", "description": "Add one.", **contest}]))
    write(folder / "mbpp.jsonl", {"text": "Add one.", "code": "def add(a):\n    return a + 1", "task_id": 1, "test_setup_code": "", "test_list": ["assert add(1) == 2"], "challenge_test_list": []})  # fmt: skip
    cases = json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}])
    write(folder / "livecodebench.jsonl", {"question_content": "Add one.", "question_id": "a", "public_test_cases": cases, "private_test_cases": "[]", "metadata": "{}", "starter_code": ""})  # fmt: skip
    styles = {side: [f"def f(n):\n    return n + {n} # {side}" for n in range(3)] for side in ("chosen", "rejected")}
    (folder / "code_filtered.json").write_text(json.dumps([{"id": 1, "prompt": "Add.", "language": "python", **styles}]))  # fmt: skip
    shutil.copytree(REWARD_MODEL, folder / "other")


def fill_with_rollouts(folder):
    """For the page on pairs: real rollouts as TRL writes them."""
    datasets = pytest.importorskip("datasets")
    for name in ("verdicts", "pairs", "held_out"):
        (folder / f"{name}.jsonl").unlink()
    rollouts = [{"prompt": row["prompt"], "completion": row["completion"]} for row in slice_of("rollouts", 8)]
    (folder / "runs" / "grpo" / "completions").mkdir(parents=True)
    datasets.Dataset.from_list(rollouts).to_parquet(folder / "runs" / "grpo" / "completions" / "completions_00001.parquet")  # fmt: skip
    problems = slice_of("problems", 8)
    write(folder / "problems.jsonl", *problems)
    with gzip.open(folder / "HumanEval.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps(problems[0]) + "\n")


def check_files(folder, _):
    assert [row["status"] for row in read(folder / "judged.jsonl")] == ["ok", "ok", "no_block"]
    assert [row["status"] for row in read(folder / "scored.jsonl")] == ["no_block"]
    page = (folder / "judged.html").read_text(encoding="utf-8")
    assert "no_block" in page
    assert not re.search(r"""(?:src|href)\s*=\s*["']?https?:|url\(["']?https?:""", page)  # it needs no internet


def check_best_of_n(folder, out):
    [ranked] = read(folder / "ranked.jsonl")
    assert len(ranked["ranked"]) == 3
    assert "candidate 1 passes all tests" in out
    [chosen] = printed(out)
    assert chosen["code"].strip() == "print(int(input()) + 1)"
    assert (folder / "calibration.json").exists()


def check_evaluation(folder, out):
    rates = {name: found["average"]["value"] for name, found in printed(out)[-1]["benchmarks"].items()}
    assert rates == {"livecodebench": 1.0, "codecontests": 1.0, "mbpp": 0.0}
    assert (folder / "report.html").stat().st_size > 50_000


def check_pairs(folder, _):
    pairs = read(folder / "pairs.jsonl")
    assert {"rollout", "unaligned"} <= {pair["kind"] for pair in pairs}
    assert slice_of("problems", 1)[0]["task_id"] not in {pair["problem_id"] for pair in pairs}
    assert (folder / "card" / "README.md").exists()


def check_serving(_, out):
    assert float(out.rpartition("}")[2]) > 0


def check_readme(folder, out):
    assert "pass@1" in out
    assert (folder / "codescaler-quickstart" / "curve.png").exists()


CHECKS = {
    "README.md": check_readme,
    "docs/best-of-n.md": check_best_of_n,
    "docs/evaluation.md": check_evaluation,
    "docs/files.md": check_files,
    "docs/pairs.md": check_pairs,
    "docs/serving.md": check_serving,
}
PRINTED = {  # by the Python blocks, in order
    "README.md": r"ok [0-9.]+\n",
    "docs/best-of-n.md": r"(?s)\n[012] candidate.*\n1 candidate 1 passes all tests",
    "docs/completions.md": r"ok [0-9.]+ .*\nno_block 0.0 .*\nsyntax_error The block at line 1 of the completion does not compile",
    "docs/reward-model.md": r"'eval_loss'",
    "docs/serving.md": r"}[0-9.]+\n",
}
RUNNER = """
import sys
from pathlib import Path

def shorten(config, **settings):
    init = config.__init__
    config.__init__ = lambda self, *args, **given: init(self, *args, **{**given, **settings})

text = Path(sys.argv[1]).read_text(encoding="utf-8")
if "Trainer" in text:
    from trl import GRPOConfig
    from codescaler_plugin import CodeScalerRewardConfig

    common = {"max_steps": 1, "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none"}
    shorten(GRPOConfig, **common, max_completion_length=8, num_generations=2, per_device_train_batch_size=2)
    shorten(CodeScalerRewardConfig, **common)
exec(compile(text, sys.argv[1], "exec"), {})
"""
RUNNABLE = [page for page in PAGES if code_of(page, "bash") or code_of(page, "python")]


@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_the_blocks_of_a_page_run(page, tmp_path, serve):
    for package in ("trl", "matplotlib", "fastapi"):
        pytest.importorskip(package)
    fill(tmp_path)
    if page.name == "pairs.md":
        fill_with_rollouts(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = {"http://localhost:8000": serve(chat(lambda _: ANSWER)).url, "8000": port, "MODEL": "builtin", "OTHER": "other"}  # fmt: skip
    (tmp_path / "run.py").write_text(RUNNER)
    script = []
    for number, block in enumerate(blocks_of(page)):
        text = put_in(block.text, **words)
        if block.info == "bash":
            script.append(SET_UP.sub("", text))
        if block.info == "python":
            (tmp_path / f"block_{number}.py").write_text(text, encoding="utf-8")
            script.append(f"python run.py block_{number}.py\n")
    out = run("\n".join([*START, *script]), tmp_path)
    assert re.search(PRINTED.get(name_of(page), ""), out), out
    if name_of(page) in CHECKS:
        CHECKS[name_of(page)](tmp_path, out)


def test_every_check_is_of_a_page_with_blocks():
    assert CHECKS.keys() | PRINTED.keys() <= {name_of(page) for page in RUNNABLE}


YAML = [(page, block) for page in PAGES for block in code_of(page, "yaml")]
assert YAML


@pytest.mark.parametrize(("page", "block"), YAML, ids=lambda value: name_of(value) if isinstance(value, Path) else "")
def test_yaml_blocks_are_recipes_of_the_host(page, block, tmp_path, monkeypatch):
    trl = pytest.importorskip("trl")
    from trl.scripts.grpo import GRPOScriptArguments

    recipe = yaml.safe_load(block)
    assert CodeScalerConfig.from_env(recipe["env"]).model == recipe["env"]["CODESCALER_MODEL"]
    for name, value in recipe["env"].items():
        monkeypatch.setenv(name, value)  # the parser sets it, and it is gone after the test
    file = tmp_path / "recipe.yaml"
    file.write_text(f"{block}output_dir: {tmp_path}\nuse_cpu: true\n", encoding="utf-8")
    parser = trl.TrlParser((GRPOScriptArguments, trl.GRPOConfig, trl.ModelConfig, trl.DatasetMixtureConfig))
    arguments, _, model, _ = parser.parse_args_and_config(["--config", str(file)], fail_with_unknown_args=True)
    assert arguments.reward_funcs == ["codescaler_plugin.codescaler_reward"]
    assert model.model_name_or_path == recipe["model_name_or_path"]


def test_json_blocks_are_an_answer_of_the_server_and_problems(tmp_path):
    blocks = {name_of(page): block for page in PAGES for block in code_of(page, "json")}
    assert blocks.keys() == {"docs/serving.md", "docs/pairs.md"}
    answer = json.loads(blocks["docs/serving.md"])
    assert answer.keys() == {"scores", "judgements"}
    [judgement] = answer["judgements"]
    assert Judgement.from_json(judgement).to_json() == judgement
    (tmp_path / "problems.jsonl").write_text(blocks["docs/pairs.md"])
    program, function = read_problems(tmp_path / "problems.jsonl")
    assert (program.tests, function.tests[1]) == ((StdioTest("4\n", "8\n"),), CallTest((3,), 6))


def test_added_lines_of_diff_blocks_are_python():
    added = [line[1:].strip().rstrip(",") for page in PAGES for block in code_of(page, "diff") for line in block.splitlines() if line.startswith("+")]  # fmt: skip
    assert added
    exec("\n".join(added), {})

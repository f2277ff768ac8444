"""The clients of seven releases of OpenRLHF, from their wheels, against `codescaler serve` and the files it loads.

Each release runs in a process of its own (`openrlhf_host.py`): its parser on the recipe's own flags, its client, its
experience maker. Stood in for: ray (runs everything at once), vllm (a scripted engine), deepspeed and other packages
that a CPU cannot have (`openrlhf_stubs.py`).
"""

import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from codescaler_plugin import CodeScaler, CodeScalerConfig, ConfigError, builtin, integrations, load_scorer
from codescaler_plugin.data.pairs import write_pairs
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.scoring.rendering import Renderer
from tests.samples import fenced

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes" / "openrlhf"
HOST = Path(__file__).with_name("openrlhf_host.py")
POLICY = Path(builtin.__file__).parent / "policy"
HOOKS = Path(integrations.__path__[0])
RELEASES = ("0.5.9", "0.7.5", "0.8.11", "0.9.1", "0.10.4", "0.11.0", "0.11.2")
LAST_OF_OLD_FLAGS = "0.10.1.post2"
CLIENTS = ("aiohttp", "requests")  # what the releases send requests with
PROBLEMS = ["Write solve(n) that returns n + 1.", "Write solve(xs): for a list xs of integers, return the sum."]
ANSWERS = [
    fenced("def solve(n):\n    return n + 1"),
    "I cannot.",
    fenced("def solve(xs):\n    return sum(xs)"),
    fenced("def solve(xs):\n    return 0"),
]
LABELS = ["", "7", {"tests": [1]}, json.dumps({"problem": PROBLEMS[1]})]
pytestmark = [pytest.mark.network, pytest.mark.timeout(900)]


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check")
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Import paths of each release, fetched once per session, or kept in the folder OPENRLHF_RELEASES."""
    kept = os.environ.get("OPENRLHF_RELEASES")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("openrlhf")

    def fetch(release: str) -> str:
        if (folder / release).is_dir():
            return ""
        wanted = CLIENTS if release == "clients" else ("--no-deps", "--no-compile", f"openrlhf=={release}")
        done = pip("install", "--target", str(folder / release), *wanted)
        return done.stderr if done.returncode else ""

    with ThreadPoolExecutor(4) as threads:
        failed = [text for text in threads.map(fetch, (*RELEASES, LAST_OF_OLD_FLAGS, "clients")) if text]
    if failed:
        pytest.skip(f"the package index cannot be reached: {failed[0].strip().splitlines()[-1]}")
    return {release: [folder / release, folder / "clients"] for release in (*RELEASES, LAST_OF_OLD_FLAGS)}


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """The address of a server with the embedded model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from codescaler_plugin.cli import app; app()"
    command = [sys.executable, "-c", code, "serve", "--model", "builtin", "--port", str(port), *options]
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, "the server has ended"
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5)
                break
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture(scope="session")
def logging_server() -> Iterator[str]:
    """As the recipes for 0.9.1 and later start it."""
    with serving("--extra-logs") as url:
        yield url


@pytest.fixture(scope="session")
def job() -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
        for text in PROBLEMS
        for _ in range(2)
    ]
    return {
        "prompts": prompts,
        "answers": ANSWERS,
        "queries": [prompt + answer + tokenizer.eos_token for prompt, answer in zip(prompts, ANSWERS, strict=True)],
        "labels": LABELS,
        "tokenizer": str(POLICY),
    }


@pytest.fixture(scope="session")
def direct() -> list[Any]:
    problems = [text for text in PROBLEMS for _ in range(2)]
    judgements = CodeScaler(config=CodeScalerConfig(model="builtin")).judge(problems, ANSWERS)
    assert [judgement.score is None for judgement in judgements] == [False, True, False, False]
    return judgements


def run(paths: list[Path], *arguments: str, python: str = sys.executable, **variables: str) -> str:
    environment = {**os.environ, **variables, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, [*paths, ROOT]))
    done = subprocess.run(
        [python, str(HOST), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout


def submitted(script: str, tmp_path: Path, *arguments: str, **variables: str) -> list[str]:
    """The arguments of `ray` or `deepspeed` as a recipe calls it; the script runs, with stand-ins for these two."""
    programs = tmp_path / "programs"
    programs.mkdir(exist_ok=True)
    record = tmp_path / "record.json"
    for name in ("ray", "deepspeed"):
        write = f"import json, sys; json.dump(sys.argv[1:], open({str(record)!r}, 'w'))"
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{write}" "$@"\n')
    (programs / "codescaler").write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "from codescaler_plugin.cli import app; app()" "$@"\n'
    )
    (programs / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        ["bash", str(RECIPES / script), *arguments],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0 or script == "train_rm.sh", done.stderr[-3000:]
    made: list[str] = json.loads(record.read_text())
    return made


def flags_of(script: str, tmp_path: Path, *arguments: str, **variables: str) -> list[str]:
    """What a recipe hands to the host. The reward must be there: the recipes check it."""
    made = submitted(script, tmp_path, *arguments, **{"PROMPTS": "prompts.jsonl", **variables})
    return made[next(place for place, text in enumerate(made) if text.startswith("openrlhf.cli")) + 1 :]


SMALL_OLD = ("--actor_num_gpus_per_node", "1", "--rollout_batch_size", "2", "--n_samples_per_prompt", "2")
SMALL_NEW = ("--actor.num_gpus_per_node", "1", "--rollout.batch_size", "2", "--rollout.n_samples_per_prompt", "2")
FLAGS_5 = (
    *("--pretrain", "p", "--remote_rm_url", "http://a", "--vllm_num_engines", "1"),
    *("--advantage_estimator", "rloo", "--n_samples_per_prompt", "2"),
)
FLAGS_7 = (*FLAGS_5, "--micro_rollout_batch_size", "1", "--rollout_batch_size", "2", "--actor_num_gpus_per_node", "1")


@pytest.mark.parametrize("release", RELEASES)
def test_client_gets_the_rewards_of_direct_scoring(
    releases: dict[str, list[Path]],
    server: str,
    logging_server: str,
    job: dict[str, Any],
    direct: list[Any],
    tmp_path: Path,
    release: str,
) -> None:
    """By URL, by two URLs, by the file, and by the agent; through the experience maker, with the recipe's flags."""
    minor = tuple(map(int, release.split(".")[:2]))
    url = f"{server}/get_reward"
    ways = [url, str(HOOKS / "openrlhf" / "reward.py")]
    if minor >= (0, 7):
        ways.append(f"{url},{url}")
    logged = f"{logging_server}/get_reward"
    if minor >= (0, 9):
        ways += [f"agent {HOOKS / 'openrlhf' / 'agent.py'}", logged]
    if minor < (0, 8):
        flags = list(FLAGS_5 if minor < (0, 6) else FLAGS_7)
    elif minor < (0, 10):
        flags = flags_of(
            "train_ppo_0.10.1.sh", tmp_path, *SMALL_OLD, "--micro_rollout_batch_size", "2", URL=url, RELEASE=release
        )
    else:
        flags = flags_of("train_ppo.sh", tmp_path, *SMALL_NEW, "--rollout.micro_batch_size", "2", URL=url)
    file = tmp_path / "job.json"
    file.write_text(json.dumps({**job, "flags": flags, "ways": ways}))
    *_, last = run(releases[release], "reward", release, str(file), CODESCALER_MODEL=server).strip().splitlines()
    results = json.loads(last)
    rewards = [judgement.reward for judgement in direct]
    assert len(results) == len(ways)
    for way, result in zip(ways, results, strict=True):
        assert result["rewards"] == pytest.approx(rewards, rel=1e-4), way
        if minor >= (0, 8):
            scores = [0.0 if one.score is None else torch.tensor(one.score).sigmoid().item() for one in direct]
            assert result["scores"] == pytest.approx(scores, rel=1e-4), way
            is_logged = way.endswith(".py") or way == logged
            hooked = {"codescaler_valid", "codescaler_fallback"} if is_logged else set()
            assert set(result["logs"]) == hooked, way
        if minor >= (0, 9):
            groups = torch.tensor(rewards).reshape(2, 2)
            shaped = (groups - groups.mean(-1, keepdim=True)) / (groups.std(-1, keepdim=True) + 1e-9)
            assert result["advantages"] == pytest.approx(shaped.flatten().tolist(), rel=1e-3), way


NEW_CASES = [{"REWARD": reward, "ASYNC": "1", "FILTER": "1"} for reward in ("server", "file", "agent")]


@pytest.mark.parametrize("release", ["0.11.2", "0.10.4"])
def test_every_flag_of_the_recipe_is_known(
    releases: dict[str, list[Path]], server: str, tmp_path: Path, release: str
) -> None:
    for case in NEW_CASES if release == "0.11.2" else NEW_CASES[2:]:
        settings = {"URL": f"{server}/get_reward", "CODESCALER_MODEL": server, **case}
        flags = flags_of("train_ppo.sh", tmp_path, "--train.seed", "7", **settings)
        [parsed] = [json.loads(run(releases[release], "parse", "openrlhf.cli.train_ppo_ray", *flags))["args"]]
        assert "async_enable=True" in parsed
        assert "dynamic_filtering_enable=True" in parsed
        assert "seed=7" in parsed
        assert {"server": f"{server}/get_reward", "file": "openrlhf/reward.py", "agent": "openrlhf/agent.py"}[
            case["REWARD"]
        ] in parsed


@pytest.mark.parametrize("release", [LAST_OF_OLD_FLAGS, "0.8.11"])
def test_every_flag_of_the_older_recipe_is_known(
    releases: dict[str, list[Path]], server: str, tmp_path: Path, release: str
) -> None:
    variables = {"URL": f"{server}/get_reward", "ASYNC": "1", "FILTER": "1", "RELEASE": release.removesuffix(".post2")}
    flags = flags_of("train_ppo_0.10.1.sh", tmp_path, "--seed", "7", **variables)
    parsed = json.loads(run(releases[release], "parse", "openrlhf.cli.train_ppo_ray", *flags))["args"]
    assert "async_train=True" in parsed
    assert f"{server}/get_reward" in parsed


def test_a_flag_that_is_not_there_would_be_found(releases: dict[str, list[Path]], server: str, tmp_path: Path) -> None:
    flags = flags_of("train_ppo.sh", tmp_path, "--remote_rm_url", "http://a", URL=f"{server}/get_reward")
    with pytest.raises(AssertionError, match="unrecognized arguments: --remote_rm_url"):
        run(releases["0.11.2"], "parse", "openrlhf.cli.train_ppo_ray", *flags)


@pytest.mark.parametrize("script", ["train_ppo.sh", "train_ppo_0.10.1.sh"])
def test_no_training_starts_without_the_reward_server(tmp_path: Path, script: str) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("codescaler", "exit 1"), ("ray", f"touch {tmp_path / 'trained'}")):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        ["bash", str(RECIPES / script)],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PORT": str(port), "PROMPTS": "p.jsonl"},
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "the reward server has ended" in done.stderr
    assert not (tmp_path / "trained").exists()


REJECTED = "def solve(n):\n    pass\n    return\n"


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    write_pairs(
        [
            PreferencePair(problem, f"def solve(n):\n    return n + {n}\n", REJECTED, "rollout", split=split)
            for n, (problem, split) in enumerate(
                [("One.", "train"), ("Two. " * 400, "train"), ("Three.", "held_out"), ("Four.", "held_out")]
            )
        ],
        path,
    )  # fmt: skip
    return path


def test_train_rm_reads_our_pairs_as_they_are_scored(
    releases: dict[str, list[Path]], tmp_path: Path, pairs: Path, tiny_rm_dir: Path
) -> None:
    flags = flags_of(
        "train_rm.sh", tmp_path, PAIRS=str(pairs), MODEL=str(tiny_rm_dir), OUTPUT=str(tmp_path), LENGTH="256"
    )
    parsed = json.loads(run(releases["0.11.2"], "parse", "openrlhf.cli.train_rm", *flags))["args"]
    assert "held_out.jsonl" in parsed
    output = run(releases["0.11.2"], "dataset", str(tmp_path / "data" / "train.jsonl"), str(tiny_rm_dir), *flags)
    rows = json.loads(output.strip().splitlines()[-1])
    tokenizer = AutoTokenizer.from_pretrained(tiny_rm_dir)
    [end] = tokenizer("\n", add_special_tokens=False)["input_ids"]
    chosen = [("One.", "def solve(n):\n    return n + 0\n"), ("Two. " * 400, "def solve(n):\n    return n + 1\n")]
    sides = [(problem, side) for problem, code in chosen for side in (code, REJECTED)]  # both get the same cut
    expected = Renderer(tokenizer, 256).encode(sides)[::2]
    assert [[*row, end] for row in rows] == expected
    assert len(expected[1]) > 200


def test_what_train_rm_saves_is_loaded_with_the_same_scores(
    releases: dict[str, list[Path]], tmp_path: Path, tiny_rm_dir: Path
) -> None:
    saved, ready = tmp_path / "saved", tmp_path / "ready"
    output = run(releases["0.11.2"], "save", str(tiny_rm_dir), str(saved), "value_head")
    theirs = json.loads(output.strip().splitlines()[-1])
    config = json.loads((saved / "config.json").read_text())
    assert config["architectures"] == ["RewardModel"]
    assert config["mean"] == 1.5
    with pytest.raises(ConfigError, match=rf"RewardModel as OpenRLHF saves it.*recipes/openrlhf/load_rm\.py {saved} "):
        load_scorer(str(saved)).score([("One.", "x = 1\n")])
    done = subprocess.run(
        [sys.executable, str(RECIPES / "load_rm.py"), str(saved), str(ready)],
        capture_output=True, text=True, timeout=200, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "CODESCALER_OFFSET=1.5 CODESCALER_TEMPERATURE=2.0" in done.stdout
    scaler = CodeScaler(config=CodeScalerConfig(model=str(ready)))
    assert scaler.scorer.score([("One.", "x = 1\n"), ("Two.", "y = 2\n")]) == pytest.approx(theirs, rel=1e-3, abs=1e-3)

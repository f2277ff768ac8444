"""The OpenRLHF recipes up to the call of Ray: rows, the check of the reward, what the job inherits. Offline but for the
releases' dataset class.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from transformers import AutoTokenizer

from codescaler_plugin.generation.prompts import prompt_of
from codescaler_plugin.text.messages import stated_problem
from codescaler_plugin.text.turns import user_turn
from tests.contract.test_openrlhf import (
    LAST_OF_OLD_FLAGS,
    POLICY,
    RECIPES,
    ROOT,
    releases,  # noqa: F401 - a fixture
    run,
    server,  # noqa: F401 - a fixture
    serving,
    submitted,
)

PPO = ("train_ppo.sh", "train_ppo_0.10.1.sh")
PROBLEMS = {
    "primeintellect": ["Read n, print n + 1.", "Read two numbers, print their sum."],
    "taco": ["Read two numbers, print their sum.", "Read a word, print it reversed."],
    "lcbv5": ["Read n, print whether it is even."],
}
TEXTS = list(dict.fromkeys(text for texts in PROBLEMS.values() for text in texts))


@pytest.fixture
def deepcoder(tmp_path: Path) -> Path:
    """A folder with the layout of agentica-org/DeepCoder-Preview-Dataset, whose four configurations differ."""
    folder = tmp_path / "data" / "deepcoder"
    for name, texts in PROBLEMS.items():
        rows: list[dict[str, Any]] = [{"problem": text, "tests": "[]", "solutions": [""]} for text in texts]
        if name == "lcbv5":
            rows = [{"problem": row["problem"], "starter_code": "", "metadata": {"func_name": None}} for row in rows]
        (folder / name).mkdir(parents=True)
        parquet.write_table(arrow.Table.from_pylist(rows), folder / name / "train-00000-of-00001.parquet")
    for name in ("lcbv5", "codeforces"):
        (folder / name).mkdir(exist_ok=True)
        held_out = arrow.Table.from_pylist([{"problem": "Held out."}])
        parquet.write_table(held_out, folder / name / "test-00000-of-00001.parquet")
    return folder


def made(tmp_path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (tmp_path / "runs" / "openrlhf" / "prompts.jsonl").read_text().splitlines()]


def after(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


@pytest.mark.parametrize("script", PPO)
def test_the_default_rows_ask_for_one_program_and_the_label_holds_the_problem(
    script: str,
    deepcoder: Path,
    tmp_path: Path,
    server: str,  # noqa: F811
) -> None:
    arguments = submitted(script, tmp_path, URL=f"{server}/get_reward")

    rows = made(tmp_path)
    assert [stated_problem(row["label"]) for row in rows] == TEXTS
    assert [row["prompt"] for row in rows] == [prompt_of(text) for text in TEXTS]
    assert all("one ```python block" in row["prompt"] for row in rows)
    prefix, old = ("--data.", "--prompt_data") if script == "train_ppo.sh" else ("--", "--prompt_data")
    name = f"{prefix}prompt_dataset" if prefix == "--data." else old
    assert after(arguments, name) == str(tmp_path / "runs" / "openrlhf" / "prompts.jsonl")
    assert after(arguments, f"{prefix}input_key") == "prompt"
    assert after(arguments, f"{prefix}label_key") == "label"
    assert f"{prefix}apply_chat_template" in arguments


@pytest.mark.network
@pytest.mark.parametrize("release", ["0.8.11", LAST_OF_OLD_FLAGS, "0.10.4", "0.11.2"])
def test_the_default_rows_are_loaded_by_the_host(
    releases: dict[str, list[Path]],  # noqa: F811
    deepcoder: Path,
    tmp_path: Path,
    server: str,  # noqa: F811
    release: str,
) -> None:
    script = PPO[release in ("0.8.11", LAST_OF_OLD_FLAGS)]
    arguments = submitted(
        script, tmp_path, URL=f"{server}/get_reward",
        RELEASE=release.removesuffix(".post2"),
    )  # fmt: skip
    flags = arguments[arguments.index("openrlhf.cli.train_ppo_ray") + 1 :]
    output = run(releases[release], "prompts", str(POLICY), *flags)
    read = json.loads(output.strip().splitlines()[-1])
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    turns = [[{"role": "user", "content": prompt_of(text)}] for text in TEXTS]
    expected = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert [prompt for prompt, _ in read] == expected
    assert [stated_problem(label) for _, label in read] == TEXTS
    assert user_turn(expected[0], "prompt").startswith(TEXTS[0])


@pytest.mark.parametrize("script", PPO)
def test_rows_of_ones_own_are_handed_on_as_they_are(script: str, tmp_path: Path, server: str) -> None:  # noqa: F811
    arguments = submitted(
        script, tmp_path, URL=f"{server}/get_reward", PROMPTS="mine.jsonl", PROBLEM="question"
    )  # fmt: skip
    assert "mine.jsonl" in arguments
    assert arguments[arguments.index("question") - 1].endswith("input_key")
    assert not [name for name in arguments if name.endswith("label_key")]


def fails(script: str, tmp_path: Path, *, codescaler: str = "", **variables: str) -> str:
    """What a recipe says that ends before it calls Ray."""
    programs = tmp_path / "programs"
    programs.mkdir()
    python = f'exec "{sys.executable}"'
    command = codescaler or f'{python} -c "from codescaler_plugin.cli import app; app()" "$@"'
    for name, text in {"python": f'{python} "$@"', "codescaler": command, "ray": "touch trained"}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment |= {"CODESCALER_PATIENCE": "2", **variables}
    done = subprocess.run(
        ["bash", str(RECIPES / script)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert not (tmp_path / "trained").exists()
    return done.stderr


@pytest.mark.parametrize("script", PPO)
def test_no_training_starts_without_problems(script: str, tmp_path: Path) -> None:
    said = fails(script, tmp_path, URL="http://127.0.0.1:9/get_reward")
    assert "data/deepcoder/primeintellect/train-*.parquet is no file, folder or hub id" in said
    assert "hf download agentica-org/DeepCoder-Preview-Dataset --repo-type dataset --local-dir data/deepcoder" in said


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize(
    ("script", "way"), [(PPO[0], "server"), (PPO[0], "file"), (PPO[0], "agent"), (PPO[1], "server"), (PPO[1], "file")]
)
def test_no_training_starts_with_a_wrong_address(script: str, way: str, tmp_path: Path) -> None:
    address = free_address()
    settings = {"URL": f"{address}/get_reward"} if way == "server" else {"CODESCALER_MODEL": address}
    said = fails(script, tmp_path, PROMPTS="rows.jsonl", REWARD=way, **settings)
    assert "no training was started" in said
    assert address in said
    assert "cannot be reached" in said


def test_the_second_of_two_servers_is_checked_too(tmp_path: Path, server: str) -> None:  # noqa: F811
    gone = free_address()
    said = fails(PPO[0], tmp_path, PROMPTS="rows.jsonl", URL=f"{server}/get_reward,{gone}/get_reward")
    assert f"no training was started, since {gone}/get_reward gives no reward" in said


def test_an_address_without_the_route_is_named_without_its_key(tmp_path: Path) -> None:
    said = fails(PPO[0], tmp_path, PROMPTS="rows.jsonl", URL="http://any:secret@rm:8000/")
    assert "URL is http://rm:8000/: expected http://host:port/get_reward" in said
    assert "secret" not in said


def test_the_key_is_that_of_the_address(tmp_path: Path) -> None:
    with serving("--api-key", "right") as url:
        there = url.removeprefix("http://")
        arguments = submitted(PPO[0], tmp_path, PROMPTS="rows.jsonl", URL=f"http://any:right@{there}/get_reward")
        assert after(arguments, "--reward.remote_url") == f"http://any:right@{there}/get_reward"
        for number, (user, key) in enumerate((("any:wrong@", {}), ("", {"CODESCALER_API_KEY": "right"}))):
            folder = tmp_path / str(number)
            folder.mkdir()
            said = fails(PPO[0], folder, PROMPTS="rows.jsonl", URL=f"http://{user}{there}/get_reward", **key)
            assert f"{url}/get_reward gives no reward" in said


SETTINGS = {"CODESCALER_FALLBACK": "0.25", "CODESCALER_PATIENCE": "5"}


@pytest.mark.parametrize("script", PPO)
def test_the_job_inherits_the_settings_of_a_file_or_agent_and_none_of_a_server(
    script: str,
    tmp_path: Path,
    server: str,  # noqa: F811
) -> None:
    settings = {"PROMPTS": "rows.jsonl", "CODESCALER_MODEL": server, **SETTINGS}
    for way in ("file", "agent"):
        arguments = submitted(script, tmp_path, REWARD=way, **settings)
        inherited = json.loads(after(arguments, "--runtime-env-json"))["env_vars"]
        assert inherited == {"CODESCALER_MODEL": server, **SETTINGS}
    loaded = {"CODESCALER_MODEL": "none", "CODESCALER_MAX_LENGTH": "4096", "CODESCALER_API_KEY": "other"}
    arguments = submitted(script, tmp_path, URL=f"{server}/get_reward", **{**settings, **loaded})
    assert "--runtime-env-json" not in arguments
    assert not [text for text in arguments if "CODESCALER" in text]


@pytest.mark.parametrize(
    ("script", "release", "logs"),
    [
        (PPO[0], "", True),
        (PPO[1], "", True),
        (PPO[1], "0.9.10", True),
        (PPO[1], "0.9.1", True),
        (PPO[1], "0.9.0", False),
        (PPO[1], "0.8.5", False),
    ],
)
def test_the_server_of_a_recipe_logs_the_fallback_where_the_release_can_take_it(
    script: str, release: str, logs: bool, tmp_path: Path
) -> None:
    more = {"RELEASE": release} if release else {}
    said = fails(script, tmp_path, codescaler='echo "options: $*" >&2; exit 1', PROMPTS="rows.jsonl", **more)
    assert ("--extra-logs" in said) is logs
    assert "options: serve --port 8000" in said

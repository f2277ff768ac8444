"""The example scripts run as a user starts them, at small settings, and print what their README says."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import untraced

EXAMPLES = Path(__file__).parents[2] / "recipes" / "examples"

pytest.importorskip("trl")
pytestmark = pytest.mark.timeout(400)


def run(script, folder, *options):
    environment = untraced(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", HF_DATASETS_CACHE=str(folder))
    command = [sys.executable, EXAMPLES / script, *map(str, options)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_grpo_in_an_own_trl_script(tmp_path):
    lines = run("trl_grpo.py", tmp_path, "--steps", 5).splitlines()
    [match] = [match for line in lines if (match := re.fullmatch(r"step 5: reward (\S+), valid (\S+)", line))]
    assert float(match[1]) > 0
    assert 0.5 < float(match[2]) <= 1
    assert (tmp_path / "runs" / "trl_grpo" / "model.safetensors").exists()


def test_own_rollouts_become_a_reward_model(tmp_path):
    out = run("rollouts_to_reward_model.py", tmp_path, "--limit", 24)
    match = re.search(r"^192 rollouts, (\d+) pass their tests: (\d+) pairs$", out, flags=re.M)
    assert 20 < int(match[1]) < 172
    assert int(match[2]) > 20
    [accuracy] = re.findall(r"^accuracy on held-out pairs: (0\.\d+|1\.0+)$", out, flags=re.M)
    assert 0 < float(accuracy) <= 1  # too few pairs to expect more
    assert (tmp_path / "runs" / "rollouts_to_reward_model" / "model" / "model.safetensors").exists()


def test_the_reward_chooses_better_than_chance(tmp_path):
    out = run("best_of_n.py", tmp_path, "--limit", 24)
    assert len(re.findall(r"^  candidate \d: (?:score|no score).*(?:passes|fails) its tests$", out, flags=re.M)) == 8
    shares = {name: float(share) for name, share in re.findall(r"^  (\w.*?) +(\d\.\d{3})$", out, flags=re.M)}
    assert shares["any completion"] < shares["chosen by the reward"] <= shares["ceiling"]


def test_the_server_is_asked_in_two_ways_and_ended(tmp_path):
    pytest.importorskip("fastapi")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = run("server_and_client.py", tmp_path, "--port", port)
    answers = {way: re.findall(rf"^{way}: (.*)$", out, flags=re.M) for way in ("/v1/score", "CodeScaler")}
    assert answers["/v1/score"] == answers["CodeScaler"]
    right, wrong, none = answers["CodeScaler"]
    assert float(right.split()[-1]) > 1 > float(wrong.split()[-1]) > 0
    assert none == "no_block, reward 0.000"
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0


def test_why_a_reward_is_zero(tmp_path):
    out = run("why_zero.py", tmp_path)
    judged = re.findall(r"^(\w.*): (\w+), reward (\S+)\n    (\S.*)$", out, flags=re.M)
    assert len(judged) == 10
    assert {status for _, status, *_ in judged} >= {"ok", "no_block", "unclosed", "multiple_blocks", "syntax_error"}
    for _, status, reward, _ in judged:
        assert (float(reward) > 0) == (status == "ok")
    last = run("why_zero.py", tmp_path, "--extraction", "last")
    assert re.search(r"^two blocks: ok, reward [1-9]", last, flags=re.M)


def test_each_example_is_short_says_what_it_shows_and_is_in_the_table():
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) == 5
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 60, script.name
        assert f"    python recipes/examples/{script.name}\n" in text
        assert f"]({script.name})" in table

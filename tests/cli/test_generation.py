"""`codescaler evaluate generation` over a server and with the embedded policy."""

import json
import re

import pytest
from typer.testing import CliRunner

from codescaler_plugin.builtin import HELD_OUT_PROBLEMS
from codescaler_plugin.cli import app
from tests.doubles import Double, Serve, chat
from tests.samples import fenced

RIGHT = fenced("def solve(n):\n    return n + 1")


@pytest.fixture
def server(serve: Serve) -> Double:
    return serve(chat(lambda _: RIGHT, ("policy-7b",), most=2))  # as servers that bound n


def test_the_command_over_a_server(server, tmp_path):
    file = tmp_path / "adds.jsonl"
    lines = [{"problem": f"Problem {n}: add one.", "tests": [[1, 2 + (n == 2)]]} for n in range(3)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["evaluate", "generation", str(file), "--server", f"{server.url}/v1", "-n", "2"]
    arguments += ["--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout.splitlines()[-1])
    measured = report["benchmarks"]["adds"]
    assert measured["average"]["value"] == pytest.approx(2 / 3)
    assert measured["pass_at"]["2"]["value"] == pytest.approx(2 / 3)
    assert report["model"] == "policy-7b"
    assert max(map(len, result.stdout.splitlines()[:-1])) <= 80
    assert re.search(r"policy-7b: 66\.7% \([\d.]+ to 100\.0\) of the completions pass, 2 for", result.stdout)
    shown = CliRunner().invoke(app, ["report", str(tmp_path / "out"), "--output", str(tmp_path / "page.html")])
    assert shown.exit_code == 0, shown.output
    assert "| pass&#64;2 | 66.7% (" in (tmp_path / "page.md").read_text()
    count = sum(path != "/v1/models" for path, _ in server.asked)
    again = CliRunner().invoke(app, arguments)
    assert json.loads(again.stdout.splitlines()[-1]) == report
    assert sum(path != "/v1/models" for path, _ in server.asked) == count


def test_the_command_over_the_embedded_policy(tmp_path):
    arguments = ["-n", "4", "--limit", "6", "--temperature", "1", "--top-p", "1", "--max-tokens", "96"]
    arguments += ["--no-instruct", "--output", str(tmp_path), "-k", "1", "-k", "4"]
    result = CliRunner().invoke(
        app,
        ["evaluate", "generation", str(HELD_OUT_PROBLEMS), "--policy-model", "builtin", *arguments],
    )

    assert result.exit_code == 0, result.output
    measured = json.loads(result.stdout.splitlines()[-1])["benchmarks"]["held_out"]
    assert 0 < measured["average"]["value"] < measured["pass_at"]["4"]["value"] <= 1
    assert len((tmp_path / "verdicts.last.jsonl").read_text().splitlines()) == 24


def test_a_summary_of_other_problems_is_found_before_the_sampling(server, tmp_path):
    file = tmp_path / "adds.jsonl"
    file.write_text(json.dumps({"problem": "Add one.", "tests": [[1, 2]]}) + "\n")
    arguments = ["evaluate", "generation", str(file), "--server", f"{server.url}/v1", "-n", "1"]
    arguments += ["--output", str(tmp_path / "out")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    file.write_text(json.dumps({"problem": "Add two.", "tests": [[1, 3]]}) + "\n")
    count = sum(path != "/v1/models" for path, _ in server.asked)
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 1
    assert "generation.adds.summary.json is of the model policy-7b on adds, not of" in " ".join(again.stderr.split())
    assert sum(path != "/v1/models" for path, _ in server.asked) == count


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give either --server URL or --policy-model MODEL"),
        (["--server", "http://x:1", "--policy-model", "other", "-n", "1", "--limit", "1"], "http://x:1"),
        (["--policy-model", "builtin", "-n", "2", "-k", "4"], "pass@4 needs as many completions: -n is 2"),
        (["--policy-model", "nowhere/at-all"], "cannot be loaded"),
    ],
)
def test_what_cannot_be_run_is_said(arguments, says, tmp_path):
    result = CliRunner().invoke(
        app, ["evaluate", "generation", str(HELD_OUT_PROBLEMS), "--output", str(tmp_path), *arguments]
    )
    assert result.exit_code == 1
    assert says in result.stderr

"""The checkup finds what is broken, each in a model broken that way."""

import json
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codescaler_plugin import doctor, load_scorer, testing
from codescaler_plugin.cli import app
from codescaler_plugin.doctor import EXAMPLE, RIGHT, WRONG, Check, examine, summary
from tests import models


def found(model: str, **settings: object) -> dict[str, Check]:
    return {check.name: check for check in examine(model, **settings)}  # type: ignore[arg-type]


def test_the_example_is_what_it_says() -> None:
    scopes: list[dict] = [{}, {}]
    for scope, code in zip(scopes, (RIGHT, WRONG), strict=True):
        exec(code, scope)  # our own text
    cases = [([1, 2, 3], 3), ([1, -1, 1, -1], 0), ([], 0), ([-1, 2, -1], 0), ([3, 1, 2], 3)]
    brute = [sum(sum(a[i:j]) == k for i in range(len(a)) for j in range(i + 1, len(a) + 1)) for a, k in cases]
    right, wrong = ([scope["count_sublists"](a, k) for a, k in cases] for scope in scopes)
    assert right == brute
    assert wrong != brute
    assert wrong[0] == brute[0]  # right on positive numbers
    assert "negative" in EXAMPLE


def test_the_embedded_model_passes() -> None:
    checks = found("builtin")
    assert {check.state for check in checks.values()} == {"ok"}, checks
    assert "one label" in checks["labels and head"].finding
    assert "2048" in checks["max length"].finding
    result = CliRunner().invoke(app, ["doctor", "builtin"])
    assert result.exit_code == 0, result.output
    assert "shared prefixes" in result.stdout


def test_no_one_label_classifier_is_red_and_tells(tmp_path: Path) -> None:
    testing.save_tiny_reward_model(tmp_path, num_labels=2)
    (only,) = examine(str(tmp_path))
    assert (only.state, bool(only.advice)) == ("failed", True)
    assert "2 labels" in only.finding
    result = CliRunner().invoke(app, ["doctor", str(tmp_path)])
    assert result.exit_code == 1
    assert "next:" in result.stdout


def test_a_causal_model_and_no_model_are_red(tiny_policy_dir: Path, tmp_path: Path) -> None:
    assert found(str(tiny_policy_dir))["labels and head"].state == "failed"
    assert found(str(tmp_path / "absent"))["labels and head"].state == "failed"


def changed(folder: Path, file: str, **settings: object) -> str:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return str(folder)


def test_pad_tokens_that_differ_or_end_the_sequence_are_yellow(tmp_path: Path) -> None:
    other = changed(testing.save_tiny_reward_model(tmp_path / "other"), "config.json", pad_token_id=5)
    check = found(other)["pad token"]
    assert (check.state, "config 5, tokenizer 0" in check.finding) == ("warning", True)
    same = testing.save_tiny_reward_model(tmp_path / "same")
    changed(same, "tokenizer_config.json", pad_token="<|im_end|>")
    changed(same, "config.json", pad_token_id=2)
    assert "end of sequence" in found(str(same))["pad token"].finding


def test_a_template_that_changes_the_code_is_red(tmp_path: Path) -> None:
    folder = testing.save_tiny_reward_model(tmp_path)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m['content'] | upper }}<|im_end|>{% endfor %}"
    )
    assert found(str(folder))["chat template"].state == "failed"
    (folder / "chat_template.jinja").write_text("{% for m in messages %}<|im_start|>{{ m['content'] }}{% endfor %}")
    checks = found(str(folder))
    assert checks["chat template"].state == "ok"


def test_a_start_token_before_each_turn_is_fine_and_twice_in_a_row_is_red(tmp_path: Path) -> None:
    folder = testing.save_tiny_reward_model(tmp_path)
    each = changed(folder, "tokenizer_config.json", bos_token="<|im_start|>")
    assert "template start" not in found(each)
    template = folder / "chat_template.jinja"
    template.write_text("<|im_start|>" + template.read_text())
    assert found(each)["template start"].state == "failed"


def test_a_head_of_zeros_is_red_twice(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = testing.save_tiny_reward_model(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"].zero_()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    checks = found(str(folder))
    assert checks["head"].state == "failed"
    assert checks["example"].state == "failed"
    assert "equal scores" in checks["example"].advice


def test_limits(tiny_rm_dir: Path) -> None:
    assert found(str(tiny_rm_dir), max_length=10**9)["max length"].state == "failed"
    short = found(str(tiny_rm_dir), max_length=64)
    assert short["max length"].state == "warning"
    assert short["example"].state == "failed"  # no room for the code
    assert "max_length" in short["example"].advice


def test_a_server_that_is_not_there_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "load_scorer", partial(load_scorer, patience=1.0))
    checks = found("http://127.0.0.1:9")
    assert checks["example"].state == "failed"


@pytest.mark.parametrize("score", ["padded"])
def test_a_model_without_shared_prefixes_is_yellow(tmp_path: Path, score: str) -> None:
    checks = found(str(models.save_encoder(tmp_path)))
    assert checks["shared prefixes"].state == "warning"
    assert checks["head"].state == "ok"


def test_a_device_that_is_not_there_is_the_devices_fault() -> None:
    (only,) = examine("builtin", device="cuda:7")
    assert (only.name, only.state, bool(only.advice)) == ("device", "failed", True)
    result = CliRunner().invoke(app, ["doctor", "builtin", "--device", "cuda:7"])
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "Not checked: the device cannot be used."


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (["ok", "ok"], "Fit to be a reward."),
        (["ok", "warning"], "Usable as a reward, with care: see check 1."),
        (["failed", "warning"], "Not fit to be a reward: check 0 failed."),
    ],
)
def test_a_verdict_ends_the_checkup(states: list, said: str) -> None:
    checks = [Check(f"check {number}", state, "") for number, state in enumerate(states)]
    assert summary(checks).startswith(said)


def test_the_verdict_is_the_last_line() -> None:
    last = CliRunner().invoke(app, ["doctor", "builtin"]).stdout.splitlines()[-1]
    assert last == "Fit to be a reward. How good it is: codescaler evaluate."
    assert "LARK-Lab/CodeScaler-1.7B" in found("builtin")["purpose"].finding

"""The pictures of the documentation are what their command draws, and show the numbers that are printed elsewhere."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"


def test_the_pictures_are_what_the_command_draws(tmp_path):
    subprocess.run([sys.executable, PICTURES / "draw.py", "--output", tmp_path], check=True)
    drawn = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text(encoding="utf-8") for path in PICTURES.glob("*.svg")}
    assert len(drawn) == 3
    assert drawn == kept, "run: python docs/pictures/draw.py"


@pytest.mark.parametrize("path", sorted(PICTURES.glob("*.svg")), ids=lambda path: path.name)
def test_a_picture_is_small_and_stays_within_its_card(path):
    assert path.stat().st_size < 60_000
    root = ElementTree.parse(path).getroot()
    width, height = (float(root.get(name)) for name in ("width", "height"))
    for element in root.iter():
        if element.tag.endswith("text"):
            x, y = float(element.get("x")), float(element.get("y"))
            characters = 7 * len("".join(element.itertext()))  # about 7 pixels each
            anchored = element.get("class").split()
            left = x - characters * (1 if "end" in anchored else 0.5 if "middle" in anchored else 0)
            assert left >= 0, element.text
            assert left + characters <= width, element.text
            assert 0 < y < height, element.text


def test_a_run_of_the_quickstart_becomes_its_data(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(PICTURES))
    import draw

    monkeypatch.setattr(draw, "QUICKSTART", tmp_path / "quickstart.json")
    report = {"seed": 3, "steps": 2, "pass_at_1_before": 0.25, "pass_at_1_after": 0.5, "seconds": 9.0, "output": "x"}
    (tmp_path / "report.json").write_text(json.dumps(report))
    steps = [{"reward": 1.25, "codescaler_reward/status/ok": 0.75}, {"reward": 2, "codescaler_reward/status/ok": 1}]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))

    draw.take_quickstart(tmp_path)
    draw.draw_quickstart(tmp_path / "picture.svg")

    data = json.loads((tmp_path / "quickstart.json").read_text())
    assert data["command"] == "codescaler quickstart --seed 3"
    assert (data["reward"], data["invalid"]) == ([1.25, 2], [0.25, 0])
    assert ">0.500<" in (tmp_path / "picture.svg").read_text()


def test_the_quickstarts_numbers_are_those_of_the_model_card_and_the_readme():
    report = json.loads((PICTURES / "quickstart.json").read_text(encoding="utf-8"))["report"]
    pairs = ["pass_at_1_before", "pass_at_1_after", "invalid_before", "invalid_after"]
    pairs += ["mean_reward_before", "mean_reward_after", "best_of_8", "best_of_8_after"]
    row = " | ".join([str(report["seed"]), *(f"{report[name]:.3f}" for name in pairs)])
    card = (ROOT / "codescaler_plugin" / "builtin" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"| {row} |" in card
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{report['pass_at_1_before']:.3f}" in readme
    assert f"{report['pass_at_1_after']:.3f}" in readme

"""Draws the pictures of the README and the documentation, from numbers that commands of this repository left.

    python docs/pictures/draw.py                                    # all three, into this folder
    codescaler quickstart --seed 0 && python docs/pictures/draw.py --quickstart codescaler-quickstart

| picture | data |
|---|---|
| `quickstart.svg` | `quickstart.json`, taken from a run's folder by `--quickstart` |
| `miniature.svg` | `recipes/miniature/results.json`, written by `bash recipes/miniature/run.sh` |
| `scoring.svg` | none: a diagram |

The pictures are plain SVG: text stays text, each picture is a few kilobytes and follows the reader's light or dark
mode on a background of its own. The same data give the same bytes, which a test compares.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from math import exp, log1p
from pathlib import Path
from statistics import fmean
from typing import Any
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
QUICKSTART = HERE / "quickstart.json"
MINIATURE = HERE.parents[1] / "recipes" / "miniature" / "results.json"

WIDTH, MARGIN = 480, 22
SMOOTHING = 9  # steps

LIGHT = {"card": "#ffffff", "line": "#d1d9e0", "ink": "#1f2328", "muted": "#59636e", "soft": "#eff2f5"}
LIGHT |= {
    "blue": "#0969da",
    "green": "#1a7f37",
    "red": "#cf222e",
    "sky": "#ddf4ff",
    "mint": "#dafbe1",
    "rose": "#ffebe9",
}
DARK = {"card": "#0d1117", "line": "#3d444d", "ink": "#f0f6fc", "muted": "#9198a1", "soft": "#212830"}
DARK |= {
    "blue": "#4493f8",
    "green": "#3fb950",
    "red": "#f85149",
    "sky": "#12283f",
    "mint": "#12301b",
    "rose": "#3a1a1d",
}

FONT = "font-family:-apple-system,BlinkMacSystemFont,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif"
MONO = "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"


class Picture:
    """An SVG of `WIDTH` x `height` pixels on a card. `fill` and `stroke` are names of `LIGHT`."""

    def __init__(self, height: float, title: str, description: str) -> None:
        size = {"width": str(WIDTH), "height": str(height), "viewBox": f"0 0 {WIDTH} {height}"}
        self.root = ElementTree.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", **size})
        self.add("title", text=title)
        self.add("desc", text=description)
        self.add("style", text=_style())
        self.rect(0.5, 0.5, WIDTH - 1, height - 1, fill="card", stroke="line", rx=8)

    def add(self, tag: str, *, text: str | None = None, **attributes: Any) -> ElementTree.Element:
        """An element; numbers are rounded, and colours become classes."""
        classes = [f"{part[0]}-{attributes.pop(part)}" for part in ("fill", "stroke") if part in attributes]
        classes += attributes.pop("classes", "").split()
        values = {name.replace("_", "-"): _written(value) for name, value in attributes.items()}
        if classes:
            values["class"] = " ".join(classes)
        element = ElementTree.SubElement(self.root, tag, values)
        element.text = text
        return element

    def text(self, x: float, y: float, text: str, *, fill: str = "ink", classes: str = "") -> ElementTree.Element:
        """A line of text with its baseline at y."""
        return self.add("text", x=x, y=y, text=text, fill=fill, classes=classes)

    def rect(self, x: float, y: float, width: float, height: float, **more: Any) -> None:
        """A rectangle."""
        self.add("rect", x=x, y=y, width=width, height=height, **more)

    def line(self, points: Sequence[tuple[float, float]], **more: Any) -> None:
        """Straight lines through points."""
        self.add("polyline", points=" ".join(f"{_written(x)},{_written(y)}" for x, y in points), **more)

    def arrow(self, x: float, top: float, bottom: float) -> None:
        """An arrow that points down."""
        self.line([(x, top), (x, bottom)], stroke="muted", stroke_width=1.5)
        self.line([(x - 4, bottom - 5), (x, bottom), (x + 4, bottom - 5)], stroke="muted", stroke_width=1.5)

    def heading(self, y: float, title: str, rest: str) -> None:
        """A bold title with an explanation below it."""
        self.text(MARGIN, y, title, classes="title")
        self.text(MARGIN, y + 20, rest, fill="muted")

    def stage(self, y: float, title: str, rest: str) -> None:
        """A step of a vertical sequence: a dot, a bold title, and an explanation in the same line."""
        self.add("circle", cx=35, cy=y, r=6, fill="blue")
        line = self.text(64, y + 5, "", classes="title")
        ElementTree.SubElement(line, "tspan", {"class": "f-ink"}).text = title
        ElementTree.SubElement(line, "tspan", {"class": "f-muted rest", "dx": "10"}).text = rest

    def write(self, path: Path) -> None:
        """Write the file."""
        ElementTree.indent(self.root)
        path.write_text(ElementTree.tostring(self.root, encoding="unicode") + "\n", encoding="utf-8")


def _style() -> str:
    def colours(names: dict[str, str]) -> Iterator[str]:
        for name, value in names.items():
            yield f".f-{name}{{fill:{value}}}.s-{name}{{stroke:{value}}}"

    return (
        f"text{{{FONT};font-size:14px}}.title{{font-size:16px;font-weight:600}}.bold{{font-weight:600}}"
        ".rest{font-size:14px;font-weight:400}"
        f".mono{{{MONO};font-size:13px}}.end{{text-anchor:end}}.middle{{text-anchor:middle}}"
        "polyline,path{fill:none;stroke-linejoin:round;stroke-linecap:round}"
        + "".join(colours(LIGHT))
        + "@media(prefers-color-scheme:dark){"
        + "".join(colours(DARK))
        + "}"
    )


def _written(value: Any) -> str:
    return str(value) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


class Axes:
    """A panel of a picture with linear axes, and horizontal lines at the ticks of y."""

    def __init__(
        self, picture: Picture, top: float, height: float, x_end: float, y_end: float, y_ticks: Sequence[float]
    ) -> None:
        self.left, self.right, self.top, self.bottom = 58, WIDTH - MARGIN - 18, top, top + height
        self.x_end, self.y_end = x_end, y_end
        for tick in y_ticks:
            _, y = self.at(0, tick)
            picture.line([(self.left, y), (self.right, y)], stroke="line")
            picture.text(self.left - 10, y + 5, f"{tick:g}", fill="muted", classes="end")

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point."""
        width, height = self.right - self.left, self.bottom - self.top
        return self.left + width * x / self.x_end, self.bottom - height * y / self.y_end


def draw_quickstart(path: Path) -> None:
    """Mean reward and invalid share of each step; pass@1 on held-out problems before and after."""
    data = json.loads(QUICKSTART.read_text(encoding="utf-8"))
    steps, before, after = (data["report"][name] for name in ("steps", "pass_at_1_before", "pass_at_1_after"))
    says = f"pass@1 on held-out problems rises from {before:.3f} to {after:.3f} in {steps} steps of GRPO."
    picture = Picture(448, "The curve of codescaler quickstart", says)
    picture.heading(34, "GRPO on a reward that runs no test", f"{data['command']}: {steps} steps on one CPU core")

    reward = Axes(picture, 86, 116, steps, 2.5, (0, 1, 2))
    _curve(picture, reward, data["reward"], "blue")
    picture.text(reward.left + 8, reward.top, "mean reward of a step", fill="blue", classes="bold")
    picture.text(reward.right, reward.top, f"bold: {SMOOTHING} steps", fill="muted", classes="end")

    share = Axes(picture, 236, 144, steps, 0.8, (0, 0.2, 0.4, 0.6, 0.8))
    centre = (share.left + share.right) / 2
    _curve(picture, share, data["invalid"], "red")
    picture.text(centre, share.at(0, 0.2)[1] - 7, "invalid share of a step", fill="red", classes="bold middle")
    ends = [share.at(0, before), share.at(steps, after)]
    picture.line(ends, stroke="green", stroke_width=2.5, stroke_dasharray="1 6")
    for (x, y), rate, side in zip(ends, (before, after), ("", " end"), strict=True):
        picture.add("circle", cx=x, cy=y, r=5, fill="green")
        picture.text(x + (4 if side else 8), y - 12, f"{rate:.3f}", fill="green", classes="bold" + side)
    middle = fmean(y for _, y in ends)
    picture.text(centre, middle + 27, "pass@1 on held-out problems", fill="green", classes="bold middle")
    for step in range(0, steps + 1, 20):
        picture.text(share.at(step, 0)[0], share.bottom + 22, str(step), fill="muted", classes="middle")
    picture.text(centre, share.bottom + 46, "GRPO step", fill="muted", classes="middle")
    picture.write(path)


def _curve(picture: Picture, axes: Axes, values: Sequence[float], colour: str) -> None:
    """A value for each step, thin, and the mean of the steps around it."""
    for shown, width, opacity in ((values, 1, 0.45), (_smooth(values), 2.5, 1)):
        points = [axes.at(step, value) for step, value in enumerate(shown, 1)]
        picture.line(points, stroke=colour, stroke_width=width, opacity=opacity)


def _smooth(values: Sequence[float]) -> list[float]:
    """Means over up to `SMOOTHING` steps around each step."""
    half = SMOOTHING // 2
    return [fmean(values[max(0, step - half) : step + half + 1]) for step in range(len(values))]


def draw_miniature(path: Path) -> None:
    """The gain of each way to train over the start, with its 95% interval."""
    data = json.loads(MINIATURE.read_text(encoding="utf-8"))
    arms = {name: arm for name, arm in data["arms"].items() if name != "base"}
    start, _, _ = data["arms"]["base"]["pass_at_1"]
    row, top, left, right, most = 50, 92, MARGIN + 6, WIDTH - 86, 0.25
    height = top + row * len(arms) + 62

    picture = Picture(height, "The miniature's results", "Points of pass@1 above the start, with 95% intervals.")
    rest = f"points of pass@1 above the start ({100 * start:.1f}), 95% interval"
    picture.heading(34, "Ways to train one small policy", rest)
    picture.text(WIDTH - MARGIN, top - 12, "pass@1", fill="muted", classes="end")

    def at(gain: float) -> float:
        return left + (right - left) * gain / most

    bottom = top + row * len(arms)
    for tick in range(0, 26, 5):
        x = at(tick / 100)
        for number in range(len(arms)):
            y = top + row * number + 33
            picture.line([(x, y - 9), (x, y + 9)], stroke="line")
        picture.text(x, bottom + 20, f"+{tick}" if tick else "0", fill="muted", classes="middle")
    seeds = f"{data['seeds']} seeds, {data['problems']} held-out problems, {data['completions']} completions each"
    picture.text(MARGIN, bottom + 46, seeds, fill="muted")
    for number, (name, arm) in enumerate(arms.items()):
        y = top + row * number + 33
        colour = "green" if name == "tests" else "blue" if name.startswith("codescaler") else "muted"
        gain, low, high = arm["above_base"]
        picture.text(MARGIN, y - 15, arm["says"])
        picture.line([(at(low), y), (at(high), y)], stroke=colour, stroke_width=3)
        picture.add("circle", cx=at(gain), cy=y, r=5.5, fill=colour)
        picture.text(WIDTH - MARGIN, y + 5, f"{100 * arm['pass_at_1'][0]:.1f}", fill=colour, classes="bold end")
    picture.write(path)


def draw_scoring(path: Path) -> None:
    """From completions to rewards: a group of three, of which one is invalid."""
    says = "The problem of a group goes through the model once, with what differs between the programs behind it."
    picture = Picture(640, "How completions become rewards", says)
    picture.text(MARGIN, 36, "From completions to rewards", classes="title")
    picture.line([(35, 70), (35, 572)], stroke="line", stroke_width=2)
    left, width, gap = 64, 120, 17
    columns = [left + number * (width + gap) for number in range(3)]

    picture.stage(70, "Completions", "of a policy, for one problem")
    for x, program in zip(columns, ("program 1", "program 2", "cut off"), strict=True):
        picture.rect(x, 88, width, 84, fill="card", stroke="line", rx=6)
        picture.rect(x + 10, 98, width - 20, 4, fill="line", rx=2)
        picture.rect(x + 10, 106, width - 60, 4, fill="line", rx=2)
        colours = {"fill": "rose", "stroke": "red"} if program == "cut off" else {"fill": "mint", "stroke": "green"}
        picture.rect(x + 10, 118, width - 20, 44, rx=3, **colours)
        picture.text(x + width / 2, 145, program, classes="mono middle")

    picture.stage(208, "Extraction", "one valid program, or a reason")
    for x, status in zip(columns, ("ok", "ok", "unclosed"), strict=True):
        _pill(picture, x, 226, width, status, "green" if status == "ok" else "red")

    picture.stage(292, "One forward pass", "the problem only once")
    problem, rest = 150, 117
    starts = [left + problem + 5, left + problem + rest + 10]
    picture.rect(left, 336, problem, 40, fill="sky", stroke="blue", rx=4)
    picture.text(left + problem / 2, 361, "problem", classes="mono middle")
    for number, (x, lift) in enumerate(zip(starts, (20, 34), strict=True), 1):
        target = left + problem / 2 + (14 if number == 1 else -14)
        arc = f"M{x + rest / 2:g} 334C{x + rest / 2:g} {334 - lift} {target:g} {334 - lift} {target:g} 332"
        picture.add("path", d=arc, stroke="muted", stroke_width=1.5)
        picture.line([(target - 4, 327), (target, 332), (target + 4, 327)], stroke="muted", stroke_width=1.5)
        picture.rect(x, 336, rest, 40, fill="mint", stroke="green", rx=4)
        picture.text(x + rest / 2, 361, f"rest {number}", classes="mono middle")
        picture.arrow(x + rest / 2, 379, 394)
        picture.text(x + rest / 2, 411, f"logit {number}", classes="mono middle")

    picture.stage(446, "Shaping", "log(1 + e^logit), always above 0")
    axis = [(left, 536), (left + 391, 536)]
    picture.line(axis, stroke="line", stroke_width=1.5)
    curve = [(logit / 10, log1p(exp(logit / 10))) for logit in range(-60, 31)]

    def at(logit: float, reward: float) -> tuple[float, float]:
        return left + 391 * (logit + 6) / 9, 536 - 22 * reward

    picture.line([at(*point) for point in curve], stroke="blue", stroke_width=2.5)
    for number, logit in ((1, 1.8), (2, -1.4)):
        right, low = at(logit, log1p(exp(logit)))
        picture.add("circle", cx=right, cy=low, r=5.5, fill="blue")
        picture.text(right - 8, low - 10, str(number), fill="blue", classes="bold end")

    picture.stage(572, "Rewards", "0 without a valid program")
    for x, reward in zip(columns, ("reward 1", "reward 2", "0"), strict=True):
        _pill(picture, x, 590, width, reward, "red" if reward == "0" else "green")
    picture.write(path)


def _pill(picture: Picture, x: float, y: float, width: float, text: str, colour: str) -> None:
    picture.rect(x, y, width, 28, rx=14, fill="mint" if colour == "green" else "rose", stroke=colour)
    picture.text(x + width / 2, y + 19, text, fill=colour, classes="mono middle")


PICTURES = {"quickstart.svg": draw_quickstart, "miniature.svg": draw_miniature, "scoring.svg": draw_scoring}


def take_quickstart(folder: Path) -> None:
    """Keep what `draw_quickstart` needs of a run of `codescaler quickstart`."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    data = {
        "command": f"codescaler quickstart --seed {report['seed']}",
        "report": {name: value for name, value in report.items() if name not in ("output", "seconds")},
        "reward": [round(row["reward"], 4) for row in history],
        "invalid": [round(1 - row["codescaler_reward/status/ok"], 4) for row in history],
    }
    QUICKSTART.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quickstart", type=Path, help="folder of a run, whose numbers replace quickstart.json")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the pictures")
    arguments = parser.parse_args()
    if arguments.quickstart is not None:
        take_quickstart(arguments.quickstart)
    for name, draw in PICTURES.items():
        draw(arguments.output / name)


if __name__ == "__main__":
    main()

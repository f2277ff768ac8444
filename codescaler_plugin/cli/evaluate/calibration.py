"""`codescaler evaluate calibration`."""

from typing import Any

from codescaler_plugin.cli.evaluate.run import Data, Run, RunOptions, Split, read_split, read_verdicts
from codescaler_plugin.cli.options import Extraction, grouped
from codescaler_plugin.cli.terminal import errors, reported, say
from codescaler_plugin.data.outputs import write_text


@grouped
def calibration(data: Data, *, options: RunOptions, extraction: Extraction = "last", split: Split = None) -> None:
    """From a margin to the probability of being right: isotonic and Platt.

    DATA holds pairs, or candidates with verdicts; the margin of candidates is
    that of the best program over the next other one, as codescaler rank needs
    it. Scores that evaluate pairs or candidates left in the folder are used.
    Writes the two calibrations beside the numbers, fitted on all examples.

    Example: codescaler evaluate calibration held_out.jsonl --model MODEL
    """
    with reported():
        from codescaler_plugin.data.pairs import is_pair
        from codescaler_plugin.data.rollouts import rows_of
        from codescaler_plugin.evaluation.best_of_n import leading_margins, score_candidates
        from codescaler_plugin.evaluation.calibration import evaluate_calibration
        from codescaler_plugin.evaluation.pairwise import score_pairs
        from codescaler_plugin.intervals import area, win
        from codescaler_plugin.report.sections import MARGIN_NOTE
        from codescaler_plugin.selection.calibration import METHODS, fit_calibration

        run = Run("calibration", data, options)
        _, _, first = next(rows_of(data), ("", "", {}))
        across: dict[str, Any] = {}
        if is_pair(first):
            scored = run.score(score_pairs, read_split(data, split), of="pairs")
            margins = [abs(pair.gap) for pair in scored]
            right = [win(pair.gap, 0.0) for pair in scored]
            problems = [pair.problem for pair in scored]
            across["paired"] = sum(right) / len(right)
            across["pooled"] = area([pair.chosen for pair in scored], [pair.rejected for pair in scored])
        else:
            groups = read_verdicts(data, extraction)
            scores = run.score(score_candidates, groups, of="candidates")
            margins, right, problems = leading_margins(groups, scores)
        result = evaluate_calibration(margins, right, problems)
        run.finish({**result, **across})
        for method in METHODS:
            path = run.folder / f"calibration.{run.name}.{method}.json"
            write_text(path, fit_calibration(margins, right, method=method, model=run.model).to_json() + "\n")
            say(f"wrote {path}")
        errors.print(f"note: {MARGIN_NOTE}", style="yellow")

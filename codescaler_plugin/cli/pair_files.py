"""The files of `mine` and `augment`: pairs, the report beside them, and the data card."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from codescaler_plugin.cli.options import BaseModel, Seed
from codescaler_plugin.data.outputs import check_output, write_text
from codescaler_plugin.data.rows import stem

PairsFile = Annotated[Path, Option(help="File of pairs: .jsonl, .jsonl.gz or .parquet.")]


@dataclass(frozen=True)
class PairFiles:
    """A group of options, see `options.grouped`."""

    seed: Seed = 0
    format: Annotated[str, Option(help="Columns of the output: pairs, codescaler, trl or openrlhf.")] = "pairs"
    card: Annotated[Path | None, Option(help="Folder for a data card: page, plots, JSON.")] = None
    base_model: BaseModel = None

    def check(self, output: Path, inputs: Sequence[str], held_out: Path | None = None) -> None:
        """Check before the work that all files can be written and are no inputs, and that the card's model loads."""
        from codescaler_plugin.data.pairs import output_files
        from codescaler_plugin.preference.baselines import check_causal_model
        from codescaler_plugin.preference.data_card import check_card

        for file in [*output_files(output, self.format, held_out), report_file(output)]:
            check_output(file, inputs)
        if self.card is not None:
            check_card(self.card, inputs)
            if self.base_model is not None:
                check_causal_model(self.base_model)

    def write(
        self,
        pairs: Sequence[Any],
        output: Path,
        reports: list[dict[str, Any]],
        inputs: Sequence[str],
        held_out: Path | None = None,
    ) -> list[Path]:
        """Write the pairs, the report beside them, and the card if it is asked for; returns the pairs and the card."""
        from codescaler_plugin.data.pairs import write_pairs
        from codescaler_plugin.preference.data_card import write_data_card

        files = write_pairs(pairs, output, self.format, held_out=held_out)
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        reports = [*reports[:-1], {"command": command, **reports[-1]}]
        write_text(report_file(output), json.dumps(reports, indent=2) + "\n")
        written = [*files]
        if self.card is not None:
            paths = [Path(name) for name in inputs]
            page = write_data_card(
                pairs, self.card, reports=reports, inputs=paths, outputs=files, model=self.base_model
            )
            written.append(page)
        return written


def report_file(pairs: Path) -> Path:
    """The report beside a file of pairs."""
    return pairs.with_name(f"{stem(pairs.name)}.report.json")

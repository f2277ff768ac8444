"""Write pairs in the columns of a trainer.

Hardware: none to speak of. Versions: those of the package.

    python recipes/data/export.py augmented.jsonl train.parquet --format trl

Formats: `trl`, `openrlhf`, `codescaler` (as CodeScalerPair-51K), `pairs`. The suffix of the file selects JSON lines,
gzipped JSON lines or parquet. Held-out pairs go to a second file, except in `pairs`. Expect the names of the files.
"""

import argparse
from pathlib import Path

from codescaler_plugin.data.outputs import check_output
from codescaler_plugin.data.pairs import EXPORTS, output_files, read_pairs, write_pairs


def main() -> None:
    """Read, write, name the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs")
    parser.add_argument("output", type=Path)
    parser.add_argument("--format", choices=EXPORTS, default="trl")
    arguments = parser.parse_args()
    for file in output_files(arguments.output, arguments.format):
        check_output(file, [arguments.pairs])
    for file in write_pairs(list(read_pairs(arguments.pairs)), arguments.output, arguments.format):
        print(f"wrote {file}")


if __name__ == "__main__":
    main()

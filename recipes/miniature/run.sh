#!/usr/bin/env bash
# Purpose: the paper's claims in miniature, from the embedded models to one page: see paper.py.
# Hardware: 2 CPU cores, 3 GB of memory, no network; under 60 minutes a seed. Versions: the `[trl,report]` extra.
#
#     bash recipes/miniature/run.sh
#     bash recipes/miniature/run.sh --seeds 0 1 2
#
# To override: REMAKE=1 makes the embedded models anew first (run.py, under 60 minutes more; they replace the package's);
# --jobs, --output, and the constants at the head of paper.py. Stopped at any point, it goes on where it was.
# What to expect: runs/paper/paper.html; README.md beside this file has the numbers of three seeds.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -n "${REMAKE:-}" ]; then
  python recipes/miniature/run.py --seed 0 --install
fi
python recipes/miniature/paper.py "$@"

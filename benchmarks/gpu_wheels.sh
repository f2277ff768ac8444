#!/usr/bin/env bash
# Wheels that benchmarks/gpu.sh needs on a GPU machine without network, for Python 3.12 on Linux x86-64.
#
#   bash benchmarks/gpu_wheels.sh FOLDER
#
# There must be torch, transformers, accelerate, peft, pyarrow, pandas, pytest and what they need; nothing here
# replaces those. Then, there: bash benchmarks/gpu.sh --wheels FOLDER. PYTHON names the one whose pip is used.
set -euo pipefail
MOST=40 # MB
WHEELS=(
  trl==1.16.0 datasets==5.2.0 dill==0.4.1 multiprocess==0.70.19 liger-kernel==0.8.5
  tree-sitter==0.26.1 cachetools==8.0.2 rich==15.0.0
  pytest-cov==7.1.0 coverage==7.17.5 pytest-timeout==2.4.0 pytest-xdist==3.8.0 execnet==2.1.2 # for pytest's settings
)
[ $# = 1 ] || {
  echo "usage: bash benchmarks/gpu_wheels.sh FOLDER" >&2
  exit 2
}
mkdir -p "$1"
if compgen -G "$1/*.whl" >/dev/null; then
  echo "$1 holds wheels already: give a new folder" >&2
  exit 2
fi
"${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary=:all: --dest "$1" --python-version 3.12 \
  --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
  --platform manylinux1_x86_64 "${WHEELS[@]}"
size=$(du -scm "$1"/*.whl | tail -n 1 | cut -f 1)
echo "$1: $(ls "$1"/*.whl | wc -l) wheels, $size MB"
[ "$size" -le $MOST ] || {
  echo "more than $MOST MB" >&2
  exit 1
}

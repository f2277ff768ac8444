#!/usr/bin/env bash
# A real Ray with OpenRLHF, in a virtual environment of its own (1.8 GB, one to three minutes); from the repository:
#
#   tests/engines/install_openrlhf.sh ~/openrlhf
#   OPENRLHF_PYTHON=~/openrlhf/bin/python pytest -n 0 --no-cov -m engine tests/engines/test_openrlhf_ray.py
#   RAY_PYTHON=~/openrlhf/bin/python pytest -n 0 --no-cov -m engine tests/engines/test_ray.py
set -euo pipefail
venv=$1
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet torch==2.13.0 # the CPU build, before anything that asks for a CUDA build
# The releases that OpenRLHF pins. Without its other dependencies: flash-attn and vllm want CUDA, and what a reward
# passes through imports deepspeed and the rest only by name (tests/contract/openrlhf_stubs.py).
# protobuf 7 lacks what this release of Ray Serve reads.
"$venv/bin/pip" install --quiet -e "$root[serve]" "ray[default,serve]==2.55.0" "protobuf<7" transformers==5.15.0 \
  aiohttp peft pillow pylatexenc sympy
"$venv/bin/pip" install --quiet --no-deps openrlhf==0.11.2

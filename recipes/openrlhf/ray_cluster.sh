#!/usr/bin/env bash
# Purpose: the Ray cluster that train_ppo*.sh submit to.
# Hardware: one or more machines with GPUs. Versions: the Ray that your OpenRLHF pins (2.55.0 for 0.11.2).
#
#     bash recipes/openrlhf/ray_cluster.sh                       # on the first machine
#     HEAD=10.0.0.1 bash recipes/openrlhf/ray_cluster.sh         # on each of the others
#     NODES=2 URL=http://10.0.0.1:8000/get_reward bash recipes/openrlhf/train_ppo.sh   # on the first
#
# To override: GPUS (of this machine, for Ray), PORT. Leave the GPU of a reward server on this machine out of GPUS.
# What to expect: `ray status` lists all machines. Several machines: see README.md beside this file.
set -euo pipefail
gpus=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}
if [ -z "${HEAD:-}" ]; then
  ray start --head --num-gpus "$gpus" --port "${PORT:-6379}"
else
  ray start --address "$HEAD:${PORT:-6379}" --num-gpus "$gpus"
fi

#!/usr/bin/env bash
# Purpose: as train_ppo.sh, with the flags of the releases before 0.10.2.
# Hardware: as train_ppo.sh.
# Versions: OpenRLHF 0.8 to 0.10.1; for another than 0.10.1 set RELEASE. REWARD=agent needs 0.9.1; for REWARD=file up to
#     0.9.0 let CODESCALER_MODEL name a server, since the model would be loaded into each Ray worker. Before 0.6 the
#     command is `openrlhf.cli.train_ppo`, and REWARD=server works with it in the same way (--remote_rm_url). Ray runs
#     (ray_cluster.sh).
#
#     hf download agentica-org/DeepCoder-Preview-Dataset --repo-type dataset --local-dir data/deepcoder
#     bash recipes/openrlhf/train_ppo_0.10.1.sh
#     REWARD=file CODESCALER_MODEL=http://rm:8000 RELEASE=0.8.11 bash recipes/openrlhf/train_ppo_0.10.1.sh --seed 1
#
# To override, and what to expect: as train_ppo.sh; checked in the same way.
set -euo pipefail
policy=${POLICY:-Qwen/Qwen3-8B-Base}
output=${OUTPUT:-runs/openrlhf}
port=${PORT:-8000}
url=${URL:-}
prompts=${PROMPTS:-}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/reward.sh"
columns=(--input_key "${PROBLEM:-problem}")
if [ -z "$prompts" ]; then
  prompts=$(realpath -m "$output")/prompts.jsonl # Ray runs the job in another folder
  make_prompts "$prompts"
  columns=(--input_key prompt --label_key label)
fi
gpus=8
job=()
logs=(--extra-logs)
case ${RELEASE:-0.10.1} in 0.8* | 0.9.0*) logs=() ;; esac # 0.8.5 to 0.9.0 crash on them
case ${REWARD:-server} in
  server)
    if [ -z "$url" ]; then
      serve "$port" "${logs[@]}" # ends this script if it does
      url=http://127.0.0.1:$port/get_reward gpus=7
    fi
    check_servers "$url"
    reward=(--remote_rm_url "$url")
    ;;
  file | agent)
    check_reward
    job=(--runtime-env-json "$(runtime_env)")
    reward=(--remote_rm_url "$(codescaler where openrlhf)")
    [ "$REWARD" = file ] || reward=(--agent_func_path "$(codescaler where openrlhf-agent)")
    ;;
  *) echo "REWARD is '$REWARD': expected server, file or agent" >&2 && exit 2 ;;
esac
more=()
engines=$((gpus / 2))
if [ "${ASYNC:-0}" = 1 ]; then
  more+=(--async_train)
fi
if [ "${FILTER:-0}" = 1 ]; then
  more+=(--dynamic_filtering --dynamic_filtering_reward_range "${FILTER_LOW:-0.05}" "${FILTER_HIGH:-0.95}")
fi
length=(--prompt_max_len 2048 --generate_max_len 16384)
if [ "${RELEASE:-0.10.1}" = 0.10.1 ]; then # 0.10 counts both together
  length=(--max_len 18432 --max_new_tokens 16384)
fi

ray job submit "${job[@]}" -- python -m openrlhf.cli.train_ppo_ray \
  --pretrain "$policy" \
  --actor_num_nodes "${NODES:-1}" --actor_num_gpus_per_node $((gpus - engines)) \
  --ref_num_nodes "${NODES:-1}" --ref_num_gpus_per_node $((gpus - engines)) \
  --colocate_actor_ref \
  --vllm_num_engines $engines --vllm_tensor_parallel_size 1 --vllm_gpu_memory_utilization "${VLLM_MEMORY:-0.8}" \
  --enable_prefix_caching --vllm_sync_backend nccl \
  --prompt_data "$prompts" "${columns[@]}" --apply_chat_template "${length[@]}" \
  --rollout_batch_size 128 --n_samples_per_prompt 8 --micro_rollout_batch_size 4 \
  --temperature 0.6 --top_p 0.95 \
  --train_batch_size 1024 --micro_train_batch_size 2 --num_episodes 1 \
  --advantage_estimator group_norm --init_kl_coef 0 \
  --eps_clip_low_high 0.2 0.28 --actor_learning_rate 1e-6 --lr_warmup_ratio 0.04 \
  --gradient_checkpointing --zero_stage 3 --packing_samples \
  --save_path "$output" --ckpt_path "$output/checkpoints" --save_steps 50 --save_hf_ckpt \
  --use_tensorboard "$output/logs" \
  "${reward[@]}" "${more[@]}" "$@"

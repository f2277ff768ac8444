#!/usr/bin/env bash
# Purpose: GRPO of a policy with CodeScaler's reward in OpenRLHF, without test execution.
# Hardware: one machine with 8 GPUs of 80 GB for a policy of 8B. Of them REWARD=server leaves one to the reward model;
#     file and agent load it once per vLLM engine instead, beside it, unless CODESCALER_MODEL names a server.
# Versions: OpenRLHF 0.10.2 to 0.11.2; for 0.8 to 0.10.1 take train_ppo_0.10.1.sh. Ray runs (ray_cluster.sh).
#
#     hf download agentica-org/DeepCoder-Preview-Dataset --repo-type dataset --local-dir data/deepcoder
#     bash recipes/openrlhf/train_ppo.sh
#     REWARD=agent CODESCALER_MODEL=http://rm:8000 bash recipes/openrlhf/train_ppo.sh --train.seed 1
#
# To override: the variables below, and any flag of OpenRLHF as an argument (the last one of a name counts). For the
# settings of the reward, CODESCALER_* variables: of the server with REWARD=server, else of this script's environment.
# What to expect: first a check, which ends the script with the reason if the reward cannot be had; then as README.md
# beside this file says. Not run by this project, which has no GPU: every flag is checked against the parser of the
# releases, the rows against their dataset class, and the reward's path through their client and experience maker.
set -euo pipefail
policy=${POLICY:-Qwen/Qwen3-8B-Base}
output=${OUTPUT:-runs/openrlhf}
port=${PORT:-8000}
url=${URL:-}         # servers that run already, with REWARD=server: http://host:port/get_reward, divided by commas
prompts=${PROMPTS:-} # rows as they are, with the problem in the column PROBLEM; else they are made of PROBLEMS

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/reward.sh"
columns=(--data.input_key "${PROBLEM:-problem}")
if [ -z "$prompts" ]; then
  prompts=$(realpath -m "$output")/prompts.jsonl # Ray runs the job in another folder
  make_prompts "$prompts"
  columns=(--data.input_key prompt --data.label_key label)
fi
gpus=8
job=()
case ${REWARD:-server} in
  server)
    if [ -z "$url" ]; then
      serve "$port" --extra-logs # ends this script if it does
      url=http://127.0.0.1:$port/get_reward gpus=7
    fi
    check_servers "$url"
    reward=(--reward.remote_url "$url")
    ;;
  file | agent)
    check_reward
    job=(--runtime-env-json "$(runtime_env)") # Ray's processes inherit CODESCALER_* from the job
    reward=(--reward.remote_url "$(codescaler where openrlhf)")
    [ "$REWARD" = file ] || reward=(--train.agent_func_path "$(codescaler where openrlhf-agent)")
    ;;
  *) echo "REWARD is '$REWARD': expected server, file or agent" >&2 && exit 2 ;;
esac
more=()
engines=$((gpus / 2))
if [ "${ASYNC:-0}" = 1 ]; then # generation and training overlap, each on GPUs of its own
  more+=(--train.async_enable --train.async_queue_size 1)
fi
if [ "${FILTER:-0}" = 1 ]; then # drops prompts whose mean score is outside: nobody, or all, did well. Scores are in [0, 1]
  more+=(--algo.dynamic_filtering_enable --algo.dynamic_filtering_range "${FILTER_LOW:-0.05}" "${FILTER_HIGH:-0.95}")
fi

ray job submit "${job[@]}" -- python -m openrlhf.cli.train_ppo_ray \
  --actor.model_name_or_path "$policy" \
  --actor.num_nodes "${NODES:-1}" --actor.num_gpus_per_node $((gpus - engines)) \
  --ref.num_nodes "${NODES:-1}" --ref.num_gpus_per_node $((gpus - engines)) \
  --train.colocate_actor_ref \
  --vllm.num_engines $engines --vllm.tensor_parallel_size 1 --vllm.gpu_memory_utilization "${VLLM_MEMORY:-0.8}" \
  --vllm.enable_prefix_caching --vllm.sync_backend nccl \
  --data.prompt_dataset "$prompts" "${columns[@]}" --data.apply_chat_template \
  --data.max_len 18432 --rollout.max_new_tokens 16384 \
  --rollout.batch_size 128 --rollout.n_samples_per_prompt 8 --rollout.micro_batch_size 4 \
  --rollout.temperature 0.6 --rollout.top_p 0.95 \
  --train.batch_size 1024 --train.micro_batch_size 2 --train.num_episodes 1 \
  --algo.advantage.estimator group_norm --algo.kl.init_coef 0 \
  --actor.eps_clip_low_high 0.2 0.28 --actor.adam.lr 1e-6 --actor.lr_warmup_ratio 0.04 \
  --actor.gradient_checkpointing_enable --ds.zero_stage 3 --ds.param_dtype bf16 --ds.packing_samples \
  --ckpt.output_dir "$output" --ckpt.path "$output/checkpoints" --ckpt.save_steps 50 --ckpt.save_hf \
  --logger.tensorboard_dir "$output/logs" \
  "${reward[@]}" "${more[@]}" "$@"

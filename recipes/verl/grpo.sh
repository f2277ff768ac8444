#!/usr/bin/env bash
# Purpose: GRPO of a policy with CodeScaler's reward in verl, without test execution.
# Hardware: one machine with 8 GPUs of 80 GB for a policy of 8B, and a GPU for the reward server, here or elsewhere.
# Versions: verl 0.9.1. In verl before 0.7 the keys `reward.custom_reward_function.*` begin at `custom_reward_function`.
#
#     codescaler serve --model LARK-Lab/CodeScaler-8B --port 8000   # on its own GPU
#     python recipes/verl/data.py problems.jsonl runs/verl/train.parquet
#     CODESCALER_MODEL=http://127.0.0.1:8000 TRAIN=runs/verl/train.parquet bash recipes/verl/grpo.sh
#
# To override: the variables below, and any key of verl as an argument. CODESCALER_MODEL may name several servers; what
# concerns the model itself, such as its length, is set where it is served. CODESCALER_FALLBACK is the reward of what
# cannot be scored. The rows must have the problem in `extra_info.problem`, for verl hands no prompt to a reward (data.py
# puts it there).
# What to expect: `critic/score/mean` rises from near 0 as answers begin to hold one valid program, then slowly;
# `codescaler_fallback` stays 0 in the validation metrics. Not run by this project, which has no GPU: every key is
# checked against verl's own configuration, the reward through its manager's code.
set -euo pipefail
if [[ ${CODESCALER_MODEL:-} != *://* ]]; then
  echo "CODESCALER_MODEL is '${CODESCALER_MODEL:-}': expected http://host:port of codescaler serve, since each of" \
    "verl's reward workers would load a model" >&2
  exit 2
fi
policy=${POLICY:-Qwen/Qwen3-8B-Base}
train=${TRAIN:?a parquet file as data.py writes it}
validation=${VALIDATION:-$train}
output=${OUTPUT:-runs/verl}

python -m verl.trainer.main_ppo \
  algorithm.adv_estimator=grpo algorithm.use_kl_in_reward=False \
  data.train_files="$train" data.val_files="$validation" data.train_batch_size=128 \
  data.max_prompt_length=2048 data.max_response_length=16384 data.truncation=error \
  data.filter_overlong_prompts=True \
  actor_rollout_ref.model.path="$policy" actor_rollout_ref.model.enable_gradient_checkpointing=True \
  actor_rollout_ref.actor.optim.lr=1e-6 actor_rollout_ref.actor.optim.lr_warmup_steps=10 \
  actor_rollout_ref.actor.use_kl_loss=False \
  actor_rollout_ref.actor.clip_ratio_low=0.2 actor_rollout_ref.actor.clip_ratio_high=0.28 \
  actor_rollout_ref.actor.ppo_mini_batch_size=128 actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1 \
  actor_rollout_ref.actor.fsdp_config.param_offload=True actor_rollout_ref.actor.fsdp_config.optimizer_offload=True \
  actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.n=8 \
  actor_rollout_ref.rollout.temperature=0.6 actor_rollout_ref.rollout.top_p=0.95 actor_rollout_ref.rollout.top_k=20 \
  actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
  actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=2 \
  reward.num_workers=8 reward.reward_manager.name=naive \
  reward.custom_reward_function.path="$(codescaler where verl)" \
  reward.custom_reward_function.name=compute_score_async \
  trainer.n_gpus_per_node=8 trainer.nnodes=1 trainer.total_training_steps=250 \
  trainer.save_freq=50 trainer.test_freq=25 trainer.logger='["console","tensorboard"]' \
  trainer.project_name=codescaler trainer.experiment_name="$(basename "$policy")" \
  trainer.default_local_dir="$output/checkpoints" trainer.rollout_data_dir="$output/rollouts" \
  "$@"

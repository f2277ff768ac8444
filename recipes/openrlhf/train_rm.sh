#!/usr/bin/env bash
# Purpose: a code reward model from preference pairs with OpenRLHF's train_rm, in a form that this package scores with.
# Hardware: 8 GPUs of 80 GB for 8B; one for 1.7B. Versions: OpenRLHF 0.10.2 to 0.11.2.
#
#     PAIRS=runs/pairs/augmented.jsonl bash recipes/openrlhf/train_rm.sh
#     PAIRS=pairs.jsonl MODEL=Skywork/Skywork-Reward-V2-Qwen3-1.7B bash recipes/openrlhf/train_rm.sh --adam.lr 2e-6
#
# To override: the variables below, and any flag of train_rm as an argument.
# What to expect: OUTPUT/data (pairs rendered as they will be scored), OUTPUT/openrlhf (what the host saves) and
# OUTPUT/model, for `codescaler score --model`, CodeScalerReward, `codescaler serve`. Note that train_rm draws the head
# anew (`init_value_head`): of a reward model as MODEL, only the body is kept. CodeScalerRewardTrainer
# (recipes/trl/reward_codescaler.py) keeps the head, draws unaligned pairs and shares prefixes; take this recipe if you
# live in OpenRLHF. Not run by this project, which has no GPU: the flags are checked against the host's parser, the data
# against its dataset class, the loading against checkpoints that its model class saves.
set -euo pipefail
pairs=${PAIRS:?a file of pairs, as codescaler mine or augment write it}
model=${MODEL:-Skywork/Skywork-Reward-V2-Qwen3-8B}
output=${OUTPUT:-runs/openrlhf-rm}
length=${LENGTH:-4096}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

python "$here/rm_data.py" "$pairs" "$output/data" --tokenizer "$model" --max-length "$length"
evaluation=()
if [ -f "$output/data/held_out.jsonl" ]; then
  evaluation=(--eval.dataset "$output/data/held_out.jsonl" --eval.steps 50)
fi
deepspeed --module openrlhf.cli.train_rm \
  --model.model_name_or_path "$model" --ds.value_head_prefix score \
  --data.dataset "$output/data/train.jsonl" --data.chosen_key chosen --data.rejected_key rejected \
  --data.max_len "$length" "${evaluation[@]}" \
  --train.batch_size 128 --train.micro_batch_size 2 --train.max_epochs 1 \
  --adam.lr 1e-5 --lr_scheduler cosine_with_min_lr --lr_warmup_ratio 0.1 \
  --model.gradient_checkpointing_enable --ds.zero_stage 3 --ds.param_dtype bf16 \
  --ckpt.output_dir "$output/openrlhf" --ckpt.path "$output/checkpoints" --logger.tensorboard_dir "$output/logs" \
  "$@"
python "$here/load_rm.py" "$output/openrlhf" "$output/model"

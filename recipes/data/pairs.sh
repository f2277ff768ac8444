#!/usr/bin/env bash
# Purpose: rollouts and problems with tests -> preference pairs with a data card. Hardware: CPU. Versions, what to
# expect and all settings: README.md beside this file.
#
#     bash recipes/data/pairs.sh
#     ROLLOUTS=runs/grpo/completions PROBLEMS=problems.jsonl OUTPUT=runs/pairs bash recipes/data/pairs.sh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
rollouts=${ROLLOUTS:-$here/slice/rollouts.jsonl.gz}
problems=("$here/slice/problems.jsonl.gz")
[ -z "${PROBLEMS:-}" ] || read -ra problems <<<"$PROBLEMS"
output=${OUTPUT:-runs/pairs}
seed=${SEED:-0}
mkdir -p "$output"

decontaminate=()
for file in ${EVALUATION:-}; do decontaminate+=(--decontaminate "$file"); done
tests=()
for file in "${problems[@]}"; do tests+=(--tests "$file"); done
packages=()
for name in ${PACKAGES:-}; do packages+=(--package "$name"); done
kinds=()
for kind in ${KINDS:-unaligned=0.3 condition=0.1 off_by_one=0.1 rename=0.1}; do kinds+=(--kind "$kind"); done
fewer() { local code=$?; [ "$code" -eq 3 ] || exit "$code"; } # 3: rows were skipped, or fewer pairs than wanted; said above

codescaler verify "$rollouts" "${tests[@]}" "${packages[@]}" --extraction "${EXTRACTION:-single}" \
  --output "$output/verdicts.jsonl" || fewer
codescaler mine "$output/verdicts.jsonl" --output "$output/mined.jsonl" --held-out "${HELD_OUT:-0.2}" \
  --hard "${HARD:-0.3}" --seed "$seed" "${decontaminate[@]}" || fewer
codescaler augment "$output/mined.jsonl" "${tests[@]}" "${packages[@]}" --output "$output/augmented.jsonl" \
  --seed "$seed" "${kinds[@]}" --card "$output/card" || fewer
python "$here/export.py" "$output/augmented.jsonl" "$output/train.jsonl" --format "${FORMAT:-trl}"
python "$here/confirm.py" "$output/augmented.jsonl" "${tests[@]}" "${packages[@]}"

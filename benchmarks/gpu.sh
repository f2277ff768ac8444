#!/usr/bin/env bash
# What this project claims of CUDA, on a machine with a GPU, in at most 8 minutes and without network.
#
#   bash benchmarks/gpu.sh [--device cuda|cpu] [--tiny] [--wheels FOLDER] [--output FOLDER] [--stages "tests scoring"]
#
# --wheels: installed for this run alone, see gpu_wheels.sh. --output: a new folder, by default in benchmarks/results/.
# `--device cpu --tiny` shows in two minutes that the stages run. FOLDER/gpu.jsonl gets what the stages measure, and of
# each stage its status and seconds; FOLDER/STAGE.log what it printed. A stage that fails or takes longer than its
# limit does not keep the next from running; the exit code is then 1. Ctrl-C ends it all, and keeps what there is.
set -um -o pipefail # -m: else what runs in the background would not heed Ctrl-C
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
device=cuda tiny=() wheels="" output="" stages="tests scoring training choosing grpo_step" # in order of worth
declare -A limits=([tests]=110 [scoring]=172 [training]=56 [choosing]=76 [grpo_step]=66) # seconds: 8 minutes in all

usage() {
  sed -n 's/^#   //p' "$0" >&2
  exit 2
}
while [ $# -gt 0 ]; do
  case $1 in
    --tiny) tiny=(--tiny) && shift && continue ;;
    --device | --wheels | --output | --stages) [ $# -gt 1 ] || usage ;;
    *) usage ;;
  esac
  case $1 in
    --device) device=$2 ;;
    --wheels) wheels=$(realpath -m "$2") ;;
    --output) output=$(realpath -m "$2") ;;
    --stages) stages=$2 ;;
  esac
  shift 2
done
[ "${stages// /}" ] || usage
for stage in $stages; do [ "${limits[$stage]:-}" ] || usage; done

cd "$root" || exit 2
output=${output:-$root/benchmarks/results/$(date +%Y-%m-%d-%H%M%S)-$device}
mkdir -p "$output" || exit 2
results=$output/gpu.jsonl
if [ -e "$results" ]; then
  echo "$output holds results already: give another folder" >&2
  exit 2
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
if [ "$wheels" ]; then
  if ! compgen -G "$wheels/*.whl" >/dev/null; then
    echo "$wheels holds no wheels: make them by benchmarks/gpu_wheels.sh" >&2
    exit 2
  fi
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl || exit 2
  PYTHONPATH=$PYTHONPATH:$site
fi

# Runs a stage within its limit; leaves its exit code in `code` and what it printed in the log.
run() {
  if [ "$1" = tests ]; then
    mapfile -t files < <(grep -rlF mark.gpu tests --include "test_*.py") # what else tests import may not be there
    set -- tests -m pytest -m gpu -n 0 --no-cov -rs --durations=10 -p no:cacheprovider \
      --session-timeout=$((limits[tests] - 8)) -o faulthandler_timeout=20 "${files[@]}" # to say what failed or hangs
  else
    set -- "$1" "benchmarks/gpu/$1.py" --device "$device" "${tiny[@]}" --output "$results"
  fi
  timeout --signal=INT --kill-after=8 "${limits[$1]}" "$python" "${@:2}" >"$output/$1.log" 2>&1 &
  pid=$!
  wait "$pid"
  code=$?
  pid=""
}

table() {
  "$python" benchmarks/gpu/table.py "$output" | tee "$output/table.md"
}

interrupt() {
  trap - INT TERM
  if [ "$pid" ]; then
    kill -INT "$pid"
    wait "$pid"
    printf '{"stage": "%s", "status": "interrupted"}\n' "$stage" | tee -a "$results"
  fi
  table
  exit 130
}
pid=""
trap interrupt INT TERM

# Of pytest's last line, the number before a word.
count() {
  tail -n 1 "$output/tests.log" | grep -oE "[0-9]+ $1" | grep -oE "[0-9]+" || echo 0
}

failed=0
for stage in $stages; do
  started=$(date +%s.%N)
  run "$stage"
  seconds=$(date +%s.%N | awk -v started="$started" '{ printf "%.1f", $1 - started }')
  status=ok counts=""
  if [ "$stage" = tests ]; then
    passed=$(count passed)
    counts=", \"passed\": $passed, \"failed\": $(count failed), \"skipped\": $(count skipped)"
    [ "$device" = cpu ] || [ "$passed" -gt 0 ] || status="no test ran"
  fi
  case $code in
    0) ;;
    124 | 137) status="out of time" ;;
    *) status=failed ;;
  esac
  printf '{"stage": "%s", "status": "%s", "exit_code": %d, "seconds": %s%s}\n' \
    "$stage" "$status" "$code" "$seconds" "$counts" | tee -a "$results"
  if [ "$status" != ok ]; then
    failed=1
    tail -n 15 "$output/$stage.log"
  fi
done
table || failed=1
exit $failed

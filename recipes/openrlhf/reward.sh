# Purpose: what the recipes of this folder share; they source it. Not to be run. Hardware, versions, how to override and
# what to expect: theirs.
#
#     source recipes/openrlhf/reward.sh

# serve PORT: start a server with the model of CODESCALER_MODEL on the last GPU, end it with this script, and return
# when it has scored a program. It must be ready before the first rollout is: OpenRLHF tries five times, a second apart.
serve() {
  CUDA_VISIBLE_DEVICES=${REWARD_GPU:-7} codescaler serve --port "$1" &
  local server=$!
  trap "kill $server" EXIT
  until codescaler_is_ready "$1"; do
    kill -0 $server || { echo "the reward server has ended; its last message is above" >&2 && return 1; }
    sleep 2
  done
}

codescaler_is_ready() {
  python - "$1" <<'PYTHON'
import sys, urllib.request
try:
    urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/health", timeout=5)
except OSError:
    sys.exit(1)
PYTHON
}

# runtime_env: JSON for Ray that hands the CODESCALER_* variables of this shell to every process of the job.
runtime_env() {
  python - <<'PYTHON'
import json, os
print(json.dumps({"env_vars": {k: v for k, v in os.environ.items() if k.startswith("CODESCALER_")}}))
PYTHON
}

# Purpose: what the recipes of this folder share; they source it. Not to be run. Hardware, versions, how to override and
# what to expect: theirs.
#
#     source recipes/openrlhf/reward.sh

# serve PORT [OPTION...]: start a server with the model of CODESCALER_MODEL on the last GPU, end it with this script,
# and return when it has scored a program. It must be ready before the first rollout is: OpenRLHF tries five times, a
# second apart.
serve() {
  local port=$1
  shift
  CUDA_VISIBLE_DEVICES=${REWARD_GPU:-7} codescaler serve --port "$port" "$@" &
  local server=$!
  trap "kill $server" EXIT
  until codescaler_is_ready "$port"; do
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

# check_servers URLS: fail unless each server scores a program. The host itself would log what is wrong and then wait
# without end, with all GPUs taken. The settings of this shell are not those of the servers, so the check sees none of
# them, and nothing of it stays in this shell.
check_servers() {
  python - "$(codescaler where openrlhf)" "$1" <<'PYTHON'
import os, subprocess, sys
from urllib.parse import unquote, urlsplit

file, urls = sys.argv[1:]
others = {name: text for name, text in os.environ.items() if not name.startswith("CODESCALER_")}
for url in map(urlsplit, map(str.strip, urls.split(","))):
    address = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
    if not address.endswith("/get_reward"):
        sys.exit(f"URL is {address}: expected http://host:port/get_reward")
    settings = {"CODESCALER_MODEL": address.removesuffix("/get_reward")}
    if url.password:
        settings["CODESCALER_API_KEY"] = unquote(url.password)
    if subprocess.run([sys.executable, file], env=others | settings).returncode:
        sys.exit(f"no training was started, since {address} gives no reward; the message above says why")
PYTHON
}

# check_reward: fail unless the settings of this shell give a reward, for the same reason. A model that the engines
# will load is loaded here once.
check_reward() {
  python "$(codescaler where openrlhf)" || {
    echo "no training was started, since the CODESCALER_* variables give no reward; the message above says why" >&2
    return 1
  }
}

# runtime_env: JSON for Ray that hands the CODESCALER_* variables of this shell to every process of the job.
runtime_env() {
  python - <<'PYTHON'
import json, os
print(json.dumps({"env_vars": {k: v for k, v in os.environ.items() if k.startswith("CODESCALER_")}}))
PYTHON
}

# make_prompts FILE: write the rows that the policy is trained on from the files of PROBLEMS.
make_prompts() {
  local deepcoder=data/deepcoder # the splits that the paper trains on; lcbv5's test split is evaluation
  local problems=$deepcoder/primeintellect/train-*.parquet
  problems=${PROBLEMS:-$problems $deepcoder/taco/train-*.parquet $deepcoder/lcbv5/train-*.parquet}
  python "$here/ppo_data.py" $problems "$1" || { # no quotes: several files and patterns
    echo "PROBLEMS is '$problems': expected files with problems. The default is made by: hf download" \
      "agentica-org/DeepCoder-Preview-Dataset --repo-type dataset --local-dir $deepcoder" >&2
    return 1
  }
}

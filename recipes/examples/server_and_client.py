"""A reward server and its two clients: plain HTTP to /v1/score, and `CodeScaler("http://...")`.

    python recipes/examples/server_and_client.py
    python recipes/examples/server_and_client.py --model LARK-Lab/CodeScaler-1.7B --port 9000

Starts `codescaler serve`, waits until it is ready, asks it in both ways, and ends it. `CodeScalerReward(model=URL)`
in a TRL script and `CODESCALER_MODEL=URL` in OpenRLHF and verl ask the same server.
"""

import argparse
import subprocess
import sys

from urllib3 import PoolManager, Retry

from codescaler_plugin import CodeScaler

PROBLEM = (
    "Write solve(n). From the digits of n, take the last 5 numbers, then decrease each number by 3, then reverse the "
    "order of the numbers, then return the list."
)
PROGRAM = "def solve(n):\n    ys = [int(d) for d in str(n)][-5:]\n    ys = [d - 3 for d in ys]\n    return ys[::-1]\n"
COMPLETIONS = [
    f"```python\n{PROGRAM}```",
    f"```python\n{PROGRAM.replace('ys[::-1]', 'sorted(ys)')}```",
    "Take the last five digits, subtract 3 and reverse the list.",
]


def main() -> None:
    """Start the server, ask it, end it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin", help="reward model: hub id, directory or builtin")
    parser.add_argument("--port", default="8000")
    args = parser.parse_args()

    url = f"http://127.0.0.1:{args.port}"
    command = [sys.executable, "-m", "codescaler_plugin", "serve", "--model", args.model, "--port", args.port]
    server = subprocess.Popen(command)  # noqa: S603 - the command above
    try:
        http = PoolManager(retries=Retry(20, backoff_factor=0.1, backoff_max=5, status_forcelist=[503]))
        http.request("GET", f"{url}/health")  # 503 until the model has scored a first program

        body = {"items": [{"problem": PROBLEM, "completion": completion} for completion in COMPLETIONS]}
        for judgement in http.request("POST", f"{url}/v1/score", json=body).json()["judgements"]:
            print(f"/v1/score: {judgement['status']}, reward {judgement['reward']:.3f}")

        for judgement in CodeScaler(url).judge([PROBLEM] * len(COMPLETIONS), COMPLETIONS):
            print(f"CodeScaler: {judgement.status}, reward {judgement.reward:.3f}")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()

"""One claim: OpenRLHF's rewards come faster from `codescaler serve` than from its own `serve_rm`, and none is lost.

    python benchmarks/bench_serving.py                                      # without the comparison
    python benchmarks/bench_serving.py --openrlhf ~/openrlhf/bin/python     # with it, and with OpenRLHF's own client
    python benchmarks/bench_serving.py --soak 30 --only soak                # minutes
    python benchmarks/bench_serving.py --quick                              # under a minute, for CI

A random Qwen3 reward model (hidden 256, 4 layers) in float32 on both sides, prompts of 512 tokens, 16 completions of
128 tokens each, every sample sent once, so that no score is remembered. `serve_rm` has no float32; it is started with
that one choice changed. Both servers run throughout, are loaded in turn, and have one thread for the model. Their
throughput is compared twice: in samples per second, and in samples per second of CPU time of all the server's
processes, which other jobs on the machine distort less. Ends with exit code 1 if a check fails. The last line is JSON.
"""

import argparse
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import Qwen3Config, Qwen3ForSequenceClassification

from codescaler_plugin import testing

GROUP, PROMPT, COMPLETION = 16, 512, 128
CLIENTS = 64
FLOOR, GOAL = 2.5, 4.0
MAX_WAIT = 5.0  # milliseconds
LOAD = Path(__file__).with_name("serving_load.py")
SERVE_RM = """
import runpy, sys, torch
import openrlhf.utils.utils as utils
utils.convert_to_torch_dtype = lambda _: torch.float32
sys.argv[0] = "serve_rm"
runpy.run_module("openrlhf.cli.serve_rm", run_name="__main__")
"""


def save_model(folder: Path) -> Any:
    """The reward model with its tokenizer; returns the tokenizer."""
    words = testing.tiny_tokenizer()
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=32_000,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        num_labels=1,
        pad_token_id=words.pad_token_id,
        max_position_embeddings=8192,
    )
    model = Qwen3ForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight, std=256**-0.5)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return words


def write_samples(path: Path, words: Any, groups: int, seed: int) -> Path:
    """`groups` x 16 rows as OpenRLHF sends them; 512 tokens of prompt, 128 of completion, code that compiles."""
    rng = random.Random(seed)

    def tokens(text: str) -> int:
        return len(words(text, add_special_tokens=False)["input_ids"])

    rows = []
    for _ in range(groups):
        problem = f"Write a function solve(n), task {rng.randrange(10**9)}."
        while tokens(prompt := f"<|im_start|>user\n{problem}<|im_end|>\n<|im_start|>assistant\n") < PROMPT:
            problem += f" total {rng.randrange(100)}"
        for _ in range(GROUP):
            code = f"def solve(n):\n    total = {rng.randrange(10**6)}\n"
            while tokens(answer := f"```python\n{code}    return total\n```<|im_end|>") < COMPLETION:
                code += f"    total += n * {rng.randrange(100)}\n"
            rows.append({"query": prompt + answer, "prompt": prompt, "label": ""})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def post(url: str, body: Any) -> Any:
    """The JSON that answers a body."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=180) as answer:
        return json.load(answer)


class Server:
    """A server process with its address and log."""

    def __init__(self, command: list[str], port: int, log: Path, path: str = "/get_reward") -> None:
        self.command, self.port, self.log = command, port, log
        self.base = f"http://127.0.0.1:{port}"
        self.url = self.base + path
        self.start()

    def start(self) -> None:
        """Start it; does not wait."""
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        with self.log.open("a") as sink:
            self.process = subprocess.Popen(self.command, stdout=sink, stderr=sink, env=environment)

    def wait(self, body: Any) -> None:
        """Return once it answers a body with a reward."""
        deadline = time.monotonic() + 180
        while True:
            try:
                post(self.url, body)
            except (OSError, urllib.error.URLError):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{self.command[:4]} does not answer:\n{self.log.read_text()[-3000:]}")
                time.sleep(0.2)
            else:
                return

    def listening_after(self) -> float:
        """Seconds until it takes a connection."""
        start = time.monotonic()
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.005)
            else:
                return time.monotonic() - start

    def metrics(self) -> dict[str, float]:
        """The values of /metrics, by name with labels."""
        with urllib.request.urlopen(self.base + "/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def worker(self) -> psutil.Process | None:
        """The scoring process."""
        children = [child for child in psutil.Process(self.process.pid).children() if child.is_running()]
        return children[0] if children else None

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far."""
        root = psutil.Process(self.process.pid)
        times = [process.cpu_times() for process in [root, *root.children(recursive=True)]]
        return sum(taken.user + taken.system for taken in times)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(180)


def ours(model: Path, log: Path, *extra: str) -> Server:
    """`codescaler serve`."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("codescaler")), "serve", "--model", str(model), "--port", str(port)]
    return Server([*command, "--max-wait", str(MAX_WAIT), *extra], port, log)


def theirs(python: str, model: Path, log: Path) -> Server:
    """OpenRLHF's `serve_rm`, in float32."""
    port = free_port()
    options = ["--reward.model_name_or_path", str(model), "--ds.attn_implementation", "sdpa"]
    return Server([python, "-c", SERVE_RM, *options, "--host", "127.0.0.1", "--port", str(port)], port, log)


@contextmanager
def load(server: Server, samples: Path, python: str = sys.executable, **settings: Any) -> Iterator[dict[str, Any]]:
    """Send load meanwhile; afterwards the dictionary holds its results."""
    command = [python, str(LOAD), server.url, str(samples)]
    outcome: dict[str, Any] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(settings))
        process.stdin.close()
        process.stdin = None
        yield outcome
        text, _ = process.communicate()
    outcome.update(json.loads(text.splitlines()[-1]))  # OpenRLHF's client logs to stdout
    results = outcome.pop("results")
    outcome["samples"] = len(results)
    outcome["lost"] = sum(result["reward"] is None for result in results)
    outcome["latencies"] = sorted(result["seconds"] for result in results)
    outcome["rewards"] = [result["reward"] for result in results]


def percentile(values: list[float], share: float) -> float:
    """Of sorted values."""
    return values[min(len(values) - 1, int(share * len(values)))]


class Bench:
    """All measurements, with one of our servers and at most one of theirs."""

    def __init__(self, folder: Path, openrlhf: str | None) -> None:
        self.folder = folder
        self.openrlhf = openrlhf
        self.client = {"client": "openrlhf", "python": openrlhf} if openrlhf else {}
        self.model = folder / "model"
        self.words = save_model(self.model)
        self.number = 0
        self.server = ours(self.model, folder / "ours.log")
        [row] = self.samples(1).read_text().splitlines()[:1]
        self.first = {"query": [json.loads(row)["query"]], "prompts": [json.loads(row)["prompt"]], "labels": [""]}
        self.server.wait(self.first)
        self.maximum = 0.0

    def samples(self, groups: int) -> Path:
        """New samples."""
        self.number += 1
        return write_samples(self.folder / f"samples{self.number}.jsonl", self.words, groups, self.number)

    def throughput(self, rounds: int = 3, groups: int = 16) -> dict[str, Any]:
        """Samples per second of both, in turn, with the same samples."""
        other = theirs(self.openrlhf, self.model, self.folder / "theirs.log") if self.openrlhf else None
        if other:
            other.wait(self.first)
        rates: dict[str, list[float]] = {"ours": [], "serve_rm": []}
        per_cpu: dict[str, list[float]] = {"ours": [], "serve_rm": []}
        before = self.server.metrics()
        for _ in range(rounds):
            samples = self.samples(groups)
            for name, server in (("ours", self.server), ("serve_rm", other)):
                if server:
                    cpu = server.cpu_seconds()
                    with load(server, samples, clients=CLIENTS) as outcome:
                        pass
                    assert outcome["lost"] == 0
                    rates[name].append(outcome["samples"] / outcome["seconds"])
                    per_cpu[name].append(outcome["samples"] / (server.cpu_seconds() - cpu))
        after = self.server.metrics()
        if other:
            other.stop()
        self.maximum = statistics.median(rates["ours"])
        batches = after["codescaler_batch_samples_count"] - before["codescaler_batch_samples_count"]
        ratios = {
            name: [a / b for a, b in zip(measured["ours"], measured["serve_rm"], strict=True)]
            for name, measured in (("wall", rates), ("cpu", per_cpu))
            if other
        }
        ratio = statistics.median(ratios["cpu"]) if other else None
        computed, real = (
            after[f'codescaler_scorer_total{{what="{what}"}}'] - before[f'codescaler_scorer_total{{what="{what}"}}']
            for what in ("computed_tokens", "real_tokens")
        )
        return {
            "samples_per_second": rates,
            "samples_per_cpu_second": per_cpu,
            "paired_ratios": ratios,
            "ratio": ratio,
            "samples_per_batch": rounds * groups * GROUP / batches,
            "tokens_shared": real / computed,
            "ok": ratio is None or ratio >= FLOOR,
            "goal": ratio is not None and ratio >= GOAL,
        }

    def forward_seconds(self) -> float:
        """Seconds of a forward pass of one group of 16: the median of five."""
        name = 'codescaler_scorer_total{what="forward_seconds"}'
        taken = []
        for line in range(6):
            rows = [json.loads(text) for text in self.samples(1).read_text().splitlines()]
            before = self.server.metrics()[name]
            post(
                self.server.url, {"query": [row["query"] for row in rows], "prompts": [row["prompt"] for row in rows]}
            )
            taken += [self.server.metrics()[name] - before] if line else []
        return statistics.median(taken)

    def latency(self, seconds: float = 30.0) -> dict[str, Any]:
        """p99 at half the maximum load, one by one and in bursts of 16, against a forward pass of 16."""
        forward = self.forward_seconds()
        result: dict[str, Any] = {"forward_seconds": forward, "rate": self.maximum / 2}
        for name, burst in (("single", 1), ("burst", GROUP)):
            samples = self.samples(max(4, int(seconds * self.maximum / 2 / GROUP)))
            with load(self.server, samples, rate=self.maximum / 2, burst=burst) as outcome:
                pass
            result[name] = {f"p{share}": percentile(outcome["latencies"], share / 100) for share in (50, 99)}
            result[name]["p99_in_forwards"] = result[name]["p99"] / forward
        result["ok"] = all(result[name]["p99_in_forwards"] < 3 for name in ("single", "burst"))
        return result

    def lonely(self, requests: int = 50) -> dict[str, Any]:
        """Milliseconds that a request alone waits before it is sent to the model, and those of a plain sleep here."""
        waits, sleeps = [], []
        for line in self.samples(requests // GROUP + 1).read_text().splitlines()[:requests]:
            row = json.loads(line)
            before = self.server.metrics()["codescaler_wait_seconds_sum"]
            post(self.server.url, {"query": [row["query"]], "prompts": [row["prompt"]]})
            waits.append(1000 * (self.server.metrics()["codescaler_wait_seconds_sum"] - before))
            start = time.perf_counter()
            time.sleep(MAX_WAIT / 3000)  # as the queue waits when nothing else comes
            sleeps.append(1000 * (time.perf_counter() - start))
        result: dict[str, Any] = {"bound_ms": MAX_WAIT + 2}
        for name, values in (("wait", sorted(waits)), ("plain_sleep", sorted(sleeps))):
            result[name] = {"median_ms": statistics.median(values), "p90_ms": percentile(values, 0.9)}
        return {**result, "ok": result["wait"]["median_ms"] < MAX_WAIT + 2}

    def soak(self, minutes: float) -> dict[str, Any]:
        """80% load with hostile samples and clients that go away: lost samples, and memory from a tenth to the end."""
        before = self.server.metrics()
        memory: list[tuple[int, int]] = []
        done = threading.Event()

        def watch() -> None:
            while not done.wait(1.0):
                worker = self.server.worker()
                front = psutil.Process(self.server.process.pid).memory_info().rss
                memory.append((front, worker.memory_info().rss if worker else 0))

        watcher = threading.Thread(target=watch)
        watcher.start()
        rate = 0.8 * self.maximum
        with load(
            self.server, self.samples(64), rate=rate, repeat=60 * minutes, hostile=0.01, leavers=0.01
        ) as outcome:
            pass
        done.set()
        watcher.join()
        after = self.server.metrics()
        tenth = max(1, len(memory) // 10)
        growth = {
            name: statistics.median(row[index] for row in memory[-tenth:])
            / statistics.median(row[index] for row in memory[tenth : 2 * tenth])
            - 1
            for index, name in enumerate(("front", "worker"))
        }
        return {
            "minutes": outcome["seconds"] / 60,
            "samples": outcome["samples"],
            "left_early": outcome["left"],
            "lost": outcome["lost"],
            "fallbacks": failures(after) - failures(before),
            "p99": percentile(outcome["latencies"], 0.99),
            "memory_mb": [round(value / 2**20, 1) for value in memory[-1]],
            "memory_growth": growth,
            "worker_starts": after["codescaler_worker_starts_total"],
            "ok": outcome["lost"] == 0 and max(growth.values()) < 0.02,
        }

    def worker_kills(self, kills: int = 10, groups: int = 64) -> dict[str, Any]:
        """SIGKILL of the scoring worker under load, again as soon as it scores again.

        Samples in flight are sent again, each alone. Only a sample with which the worker crashes three times gets the
        fallback.
        """
        before = failures(self.server.metrics())
        killed: set[int] = set()
        samples = self.samples(groups)
        sent = self.server.metrics()["codescaler_batch_samples_count"]
        done = self.folder / "worker_kills"
        with load(self.server, samples, clients=CLIENTS, until=str(done), **self.client) as outcome:
            while self.server.metrics()["codescaler_batch_samples_count"] == sent:
                time.sleep(0.05)
            while len(killed) < kills:
                worker = self.server.worker()
                if worker and worker.pid not in killed and self.server.metrics()["codescaler_worker_up"] == 1:
                    time.sleep(random.Random(len(killed)).uniform(0.2, 1.5))
                    worker.kill()
                    killed.add(worker.pid)
                time.sleep(0.1)
            done.touch()
        after = self.server.metrics()
        fallbacks = failures(after) - before
        return {
            "causes": {name: value for name, value in after.items() if name.startswith("codescaler_failures_total")},
            "kills": len(killed),
            "samples": outcome["samples"],
            "lost": outcome["lost"],
            "fallbacks": fallbacks,
            "slowest": outcome["latencies"][-1],
            "ok": outcome["lost"] == 0 and fallbacks == 0,
        }

    def front_kills(self, kills: int = 3) -> dict[str, Any]:
        """SIGKILL of the front under load; started again at once, as a process manager does."""
        listening, orphans = [], 0
        done = self.folder / "front_kills"
        with load(self.server, self.samples(64), clients=CLIENTS, until=str(done), **self.client) as outcome:
            for _ in range(kills):
                time.sleep(5)
                while self.server.metrics()["codescaler_worker_up"] != 1:
                    time.sleep(0.1)
                time.sleep(1)
                worker = self.server.worker()
                self.server.process.kill()
                self.server.process.wait()
                self.server.start()
                listening.append(self.server.listening_after())
                time.sleep(1)
                orphans += bool(worker and worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE)
            done.touch()
        return {
            "kills": kills,
            "samples": outcome["samples"],
            "lost": outcome["lost"],
            "listening_after_seconds": listening,
            "workers_that_outlived": orphans,
            "ok": outcome["lost"] == 0 and max(listening) < 3 and not orphans,
        }

    def start_up(self) -> dict[str, Any]:
        """Seconds until a front listens, five times; and the exit code after SIGTERM."""
        seconds, codes = [], []
        for _ in range(5):
            server = ours(self.model, self.folder / "start.log")
            seconds.append(server.listening_after())
            codes.append(server.stop())
        return {"seconds": seconds, "exit_codes": codes, "ok": statistics.median(seconds) < 2 and not any(codes)}


def failures(metrics: dict[str, float]) -> float:
    """Samples that got the fallback."""
    return sum(value for name, value in metrics.items() if re.match(r"codescaler_failures_total\b", name))


def main() -> None:
    """Print a line per measurement, then the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openrlhf", metavar="PYTHON", help="of an environment with openrlhf 0.11.2")
    parser.add_argument("--soak", type=float, default=5.0, help="minutes")
    parser.add_argument("--only", action="append", help="a measurement; repeatable")
    parser.add_argument("--rounds", type=int, default=3, help="of the throughput")
    parser.add_argument("--groups", type=int, default=16, help="of 16 samples, in each round of the throughput")
    parser.add_argument("--quick", action="store_true", help="few samples, one kill, no soak, no front")
    arguments = parser.parse_args()
    names = ["throughput", "latency", "lonely", "start_up", "soak", "worker_kills", "front_kills"]
    chosen = [name for name in names if name in (arguments.only or names)]
    report: dict[str, Any] = {"load_average": os.getloadavg(), "cpus": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.openrlhf)
        if "throughput" not in chosen and {"latency", "soak"} & set(chosen):
            chosen.insert(0, "throughput")
        settings: dict[str, tuple[Any, ...]] = {
            "soak": (arguments.soak,),
            "throughput": (arguments.rounds, arguments.groups),
        }
        if arguments.quick:
            settings = {"throughput": (1, 4), "lonely": (16,), "worker_kills": (1, 2)}
            chosen = list(settings)
        try:
            for name in chosen:
                report[name] = getattr(bench, name)(*settings.get(name, ()))
                print(name, json.dumps(report[name]), file=sys.stderr, flush=True)
        finally:
            report["exit_code_after_sigterm"] = bench.server.stop()
    report["load_average_after"] = os.getloadavg()
    print(json.dumps(report))
    sys.exit(not all(report[name]["ok"] for name in chosen))


if __name__ == "__main__":
    main()

"""vLLM in a process of its own for `bench_scoring.py --engine`, run by the Python of an environment that has vLLM.

    python benchmarks/vllm_classify.py MODEL CORES BLOCK    # CORES as `0` or `0,1`; BLOCK tokens of the prefix cache

Reads a line of JSON for each call, the token ids of its samples, and writes one: the raw logits, seconds by the clock
and of CPU time of the whole process, and how many tokens came from the prefix cache. The engine runs in this process:
no server and no second process stand between the call and the model.
"""

import json
import os
import sys
from time import perf_counter, process_time


def main() -> None:
    """Answer until the input ends."""
    model, cores, block = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM writes to the standard output
    os.sched_setaffinity(0, set(map(int, cores.split(","))))
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "OMP_NUM_THREADS": str(len(cores.split(","))),  # not what the caller has
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "HF_HUB_OFFLINE": "1",
    }
    from vllm import LLM, PoolingParams

    engine = LLM(
        model,
        runner="pooling",
        dtype="float32",
        max_model_len=2048,
        max_num_batched_tokens=16_384,  # a group's tokens in one step
        enable_prefix_caching=True,
        block_size=int(block),
    )
    raw = PoolingParams(use_activation=False)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        prompts = [{"prompt_token_ids": ids} for ids in json.loads(line)]
        started, cpu = perf_counter(), process_time()
        outputs = engine.classify(prompts, pooling_params=raw, use_tqdm=False)
        took = perf_counter() - started, process_time() - cpu
        scores = [output.outputs.probs[0] for output in outputs]
        cached = sum(output.num_cached_tokens for output in outputs)
        print(json.dumps([scores, *took, cached]), file=answers, flush=True)


if __name__ == "__main__":
    main()

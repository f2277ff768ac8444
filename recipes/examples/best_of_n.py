"""Best of N without tests: a policy writes 8 programs a problem, and the reward model chooses one.

    python recipes/examples/best_of_n.py
    python recipes/examples/best_of_n.py --policy-model Qwen/Qwen3-1.7B --model LARK-Lab/CodeScaler-1.7B \
        --problems HumanEval.jsonl.gz --max-new-tokens 1024

Tests run only at the end, to tell how good the choices were.
"""

import argparse
from statistics import fmean

from transformers import pipeline, set_seed

from codescaler_plugin import CodeScaler, best_of_n, read_problems, run_tests
from codescaler_plugin.builtin import HELD_OUT_PROBLEMS, policy_model


def main() -> None:
    """Sample, choose, and compare the choices with tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin", help="reward model: hub id, directory, builtin or a server")
    parser.add_argument("--policy-model", default="builtin", help="policy: hub id, directory or builtin")
    parser.add_argument("--problems", default=str(HELD_OUT_PROBLEMS), help="problems with tests, in any known format")
    parser.add_argument("--limit", type=int, default=32, help="number of problems")
    parser.add_argument("--n", type=int, default=8, help="completions a problem")
    parser.add_argument("--max-new-tokens", type=int, default=96)
    args = parser.parse_args()

    set_seed(0)
    problems = list(read_problems(args.problems))[: args.limit]
    chats = [[{"role": "user", "content": problem.text}] for problem in problems]
    policy = pipeline("text-generation", policy_model(args.policy_model), max_new_tokens=args.max_new_tokens)
    sampling = {"do_sample": True, "temperature": 1.0, "return_full_text": False}
    outputs = policy(chats, num_return_sequences=args.n, batch_size=16, **sampling)

    scaler = CodeScaler(args.model)
    selections = []
    for problem, rows in zip(problems, outputs, strict=True):
        selections.append(best_of_n(scaler, problem.text, [row["generated_text"] for row in rows]))
    ranked = [(row, problem) for one, problem in zip(selections, problems, strict=True) for row in one.ranked]
    verdicts = iter(run_tests([(row.judgement.code, problem) for row, problem in ranked]))
    passed = [[next(verdicts).passed for _ in selection.ranked] for selection in selections]  # best first

    shown = next((number for number, row in enumerate(passed) if 0 < sum(row) < args.n), 0)
    print(f"{problems[shown].text}\n{selections[shown].explanation}")
    for candidate, passes in zip(selections[shown].ranked, passed[shown], strict=True):
        score = "no score" if candidate.judgement.score is None else f"score {candidate.judgement.score:5.2f}"
        print(f"  candidate {candidate.index}: {score}, {'passes' if passes else 'fails'} its tests")
    print(f"Share of {len(problems)} problems solved, {args.n} completions each:")
    print(f"  any completion       {fmean(map(fmean, passed)):.3f}")
    print(f"  chosen by the reward {fmean(row[0] for row in passed):.3f}")
    print(f"  ceiling              {fmean(map(any, passed)):.3f}")


if __name__ == "__main__":
    main()

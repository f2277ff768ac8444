"""`codescaler evaluate generation`."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Exit, Option, echo

from codescaler_plugin.builtin import policy_model
from codescaler_plugin.cli.evaluate.outcome import finish, sha256_of
from codescaler_plugin.cli.options import Extraction, ServerKey, Strict, grouped
from codescaler_plugin.cli.sandbox_options import ProblemFormat, SandboxOptions, print_faults
from codescaler_plugin.cli.terminal import Skipped, hide_loading_bars, progress_bar, reported
from codescaler_plugin.data.outputs import check_output, locked_folder
from codescaler_plugin.data.rows import stem
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extras import require
from codescaler_plugin.generation.sampling import Sampling
from codescaler_plugin.records import Problem


@dataclass(frozen=True)
class _Policy:
    """A group of options: the policy that is measured."""

    server: Annotated[
        str | None, Option(metavar="URL", help="OpenAI-compatible server(s), such as `vllm serve`'s.")
    ] = None
    policy_model: Annotated[
        str | None,
        Option(
            help="Policy for transformers: directory, hub id or 'builtin'. With --server the server's model, else the "
            "only one."
        ),
    ] = None
    api_key: ServerKey = None
    requests: Annotated[int, Option(min=1, help="Requests to the server at a time.")] = 32


@dataclass(frozen=True)
class _Draws:
    """A group of options: the completions to draw."""

    panel = "Sampling"

    n: Annotated[int, Option("-n", min=1, help="Completions per problem (Avg@n).")] = 8
    k: Annotated[list[int] | None, Option("-k", min=1, help="pass@k; repeatable; else 1 and n.")] = None
    temperature: Annotated[float, Option(min=0)] = Sampling.temperature
    top_p: Annotated[float, Option(min=0.01, max=1)] = Sampling.top_p
    top_k: Annotated[int, Option(min=0, help="0: all tokens.")] = Sampling.top_k
    max_tokens: Annotated[int, Option(min=1, help="Of a completion.")] = Sampling.max_tokens
    instruct: Annotated[bool, Option(help="Ask for one program in a block; else the problem alone.")] = (
        Sampling.instruct
    )
    seed: Annotated[int, Option(help="Seed, without --server.")] = 0

    def sampling(self) -> Sampling:
        """The settings of sampling."""
        return Sampling(self.temperature, self.top_p, self.top_k, self.max_tokens, self.instruct)

    def ks(self) -> list[int]:
        """The k of pass@k, none above n."""
        ks = sorted(set(self.k or (1, self.n)))
        if ks[-1] > self.n:
            raise ConfigError(f"pass@{ks[-1]} needs as many completions: -n is {self.n}")
        return ks


@grouped
def generation(
    problems: Annotated[list[str], Argument(metavar="FILE...", help="Problems with tests: files, folders, hub ids.")],
    *,
    policy: _Policy,
    output: Annotated[Path, Option(help="Folder; an interrupted run resumes here.")] = Path("generation"),
    draws: _Draws,
    limit: Annotated[int | None, Option(min=1, help="First problems of each file only.")] = None,
    extraction: Extraction = "last",
    strict: Strict = False,
    problem_format: ProblemFormat = "auto",
    tests: SandboxOptions,
) -> None:
    """Measure a policy: sample, run the tests, print Avg@n and pass@k.

    Reads LiveCodeBench, LiveBench, CodeContests, CodeForces and MBPP as CURE
    publishes them, MBPP, HumanEval(+), APPS, TACO, DeepCoder. Writes
    generations.jsonl, verdicts.jsonl and a summary of each file of problems for
    codescaler report; the last line of stdout is JSON. The block selection is
    that of the reference's evaluation; compare a training curve with
    --extraction single, as in its training.

    Completions without a verdict count as not passed and are named, by kind.

    Example: codescaler evaluate generation mbpp.jsonl --policy-model builtin

    Exit code: 0 done; 1 an error; 3 some rows of the problems were skipped.
    """
    from codescaler_plugin.data.rollouts import read_rollouts, rows_of
    from codescaler_plugin.evaluation.policy import PolicyResult, summarise
    from codescaler_plugin.evaluation.summary import check_summary, summary_file
    from codescaler_plugin.extraction import extract_code
    from codescaler_plugin.generation.completions import generate
    from codescaler_plugin.preference.verification import verify_rollouts

    skipped = Skipped()
    with reported(), locked_folder(output):
        if policy.server is None and policy.policy_model is None:
            raise ConfigError("give either --server URL or --policy-model MODEL")
        require("evaluate generation", "report", "scipy")
        extract_code("", extraction=extraction)  # a wrong setting is an error before the sampling
        verdicts, hashes = output / f"verdicts.{extraction}.jsonl", _hashes(problems)
        summaries = {name: summary_file(output, PolicyResult, name) for name in hashes}
        for file in (output / "generations.jsonl", verdicts, *summaries.values()):
            check_output(file, problems)
        ks, sampling = draws.ks(), draws.sampling()
        benchmarks = _benchmarks(
            problems, lambda path: tests.problems([path], problem_format, None if strict else skipped)[:limit]
        )
        complete, model = _completer(policy, sampling, draws.seed)
        for name, file in summaries.items():
            check_summary(file, model, hashes[name])
        with progress_bar("sampling", sum(map(len, benchmarks.values())) * draws.n) as advance:
            settings: dict[str, Any] = {"n": draws.n, "sampling": sampling, "model": model}
            settings["threads"] = 1 if policy.server is None else policy.requests
            generations = generate(benchmarks, complete, output, **settings, progress=advance)
        with tests.executors() as (executor, _), progress_bar("running tests") as advance:
            verified = verify_rollouts(
                read_rollouts(generations, "jsonl"),
                [problem for benchmark in benchmarks.values() for problem in benchmark],
                verdicts,
                executor=executor,
                extraction=extraction,
                settings=tests.settings,
                progress=advance,
            )
        of_run = {"extraction": extraction, **asdict(sampling), "seed": None if policy.server else draws.seed}
        results = summarise((row for _, _, row in rows_of(verdicts)), n=draws.n, ks=ks, settings=of_run)
        for name, result in results.items():
            finish(output, name, model, result, data=name, data_sha256=hashes[name])
    faults = sum((Counter(result.faults) for result in results.values()), Counter())
    print_faults(faults, verified.examples, f"delete {verdicts} and run again; the completions stay")
    report = {"model": model, "extraction": extraction, "sampling": asdict(sampling)}
    echo(json.dumps({**report, "benchmarks": {name: result.to_json() for name, result in results.items()}}))
    if skipped.count:
        raise Exit(3)


def _hashes(paths: Sequence[str]) -> dict[str, str]:
    """The SHA-256 of each file of problems, empty for a folder or a data set on the hub, by the file's stem."""
    hashes: dict[str, str] = {}
    for path in paths:
        name = _name(path)
        if name in hashes:
            raise DataError(f"two files are called {name}: evaluate them one by one")
        hashes[name] = sha256_of(path)
    return hashes


def _benchmarks(paths: Sequence[str], read: Callable[[str], list[Problem]]) -> dict[str, list[Problem]]:
    """The problems of each file, by its stem."""
    return {_name(path): read(path) for path in paths}


def _name(path: str) -> str:
    return stem(Path(path.partition(":")[0]).name)


def _completer(policy: _Policy, sampling: Sampling, seed: int) -> "tuple[Any, str]":
    """The function that completes prompts, and the name of its model."""
    from codescaler_plugin.generation.local import transformers_completer
    from codescaler_plugin.generation.server import server_completer

    if policy.server is not None:
        return server_completer(policy.server, sampling, model=policy.policy_model, api_key=policy.api_key)
    hide_loading_bars()
    name = policy.policy_model or ""
    return transformers_completer(policy_model(name), sampling, seed=seed), name

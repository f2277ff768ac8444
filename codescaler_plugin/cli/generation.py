"""`codescaler evaluate generation`."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codescaler_plugin.cli.options import grouped
from codescaler_plugin.cli.sandbox_options import ProblemFormat, SandboxOptions, print_faults
from codescaler_plugin.cli.terminal import (
    Skipped,
    Terminal,
    number_table,
    rate_bar,
    reported,
    say,
    without_loading_bars,
)
from codescaler_plugin.data.outputs import check_output, locked_folder, write_text
from codescaler_plugin.data.rows import stem
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extras import require
from codescaler_plugin.generation.sampling import Sampling

if TYPE_CHECKING:
    from codescaler_plugin.evaluation.policy import Benchmark

_SAMPLING = "Sampling"


@grouped
def generation(
    problems: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Problems with tests: files, folders, hub ids.")
    ],
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="OpenAI-compatible server(s), such as `vllm serve`'s.")
    ] = None,
    policy_model: Annotated[
        str | None, typer.Option(help="Model for transformers: directory, hub id or 'builtin'; for small ones.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The server's model; else the only one it serves.")] = None,
    output: Annotated[Path, typer.Option(help="Folder; a run that was stopped goes on here.")] = Path("generation"),
    n: Annotated[
        int, typer.Option("-n", min=1, help="Completions per problem (Avg@n).", rich_help_panel=_SAMPLING)
    ] = 8,
    k: Annotated[
        list[int] | None,
        typer.Option("-k", min=1, help="pass@k; repeatable; else 1 and n.", rich_help_panel=_SAMPLING),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, rich_help_panel=_SAMPLING)] = Sampling.temperature,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, rich_help_panel=_SAMPLING)] = Sampling.top_p,
    top_k: Annotated[int, typer.Option(min=0, help="0: all tokens.", rich_help_panel=_SAMPLING)] = Sampling.top_k,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Of a completion.", rich_help_panel=_SAMPLING)
    ] = Sampling.max_tokens,
    instruct: Annotated[
        bool, typer.Option(help="Ask for one program in a block; else the problem alone.", rich_help_panel=_SAMPLING)
    ] = Sampling.instruct,
    requests: Annotated[int, typer.Option(min=1, help="To a server at a time.", rich_help_panel=_SAMPLING)] = 32,
    seed: Annotated[int, typer.Option(help="Of --policy-model's sampling.", rich_help_panel=_SAMPLING)] = 0,
    api_key: Annotated[
        str | None, typer.Option(envvar="OPENAI_API_KEY", help="Of the server.", rich_help_panel=_SAMPLING)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="First problems of each file only.")] = None,
    extraction: Annotated[
        str,
        typer.Option(help="The code: last block (the reference's evaluation), single (its training), first, bare."),
    ] = "last",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad row of the problems.")] = False,
    problem_format: ProblemFormat = "auto",
    *,
    tests: SandboxOptions,
) -> None:
    """Measure a policy: sample, run the tests, print Avg@n and pass@k.

    Reads LiveCodeBench, LiveBench, CodeContests, CodeForces and MBPP as CURE
    publishes them, MBPP, HumanEval(+), APPS, TACO, DeepCoder. Writes
    generations.jsonl, verdicts.jsonl and report.json; the last line of stdout is
    JSON. Compare a training curve with --extraction single.

    Completions without a verdict count as not passed and are named, by kind.

    Exit code: 0 done; 1 an error; 3 some rows of the problems were skipped.
    """
    from codescaler_plugin.builtin import policy_model as policy_of
    from codescaler_plugin.data.rollouts import read_rollouts, rows_of
    from codescaler_plugin.evaluation.policy import summarise
    from codescaler_plugin.extraction import extract_code
    from codescaler_plugin.generation.completions import generate
    from codescaler_plugin.generation.local import transformers_completer
    from codescaler_plugin.generation.server import server_completer
    from codescaler_plugin.preference.verification import verify_rollouts

    skipped = Skipped()
    with reported(), locked_folder(output):
        if (server is None) == (policy_model is None):
            raise ConfigError("give either --server URL or --policy-model MODEL")
        require("evaluate generation", "report", "scipy")
        extract_code("", extraction=extraction)  # a wrong setting is an error before the sampling
        verdicts = output / f"verdicts.{extraction}.jsonl"
        report_file = output / "report.json"
        for file in (output / "generations.jsonl", verdicts, report_file):
            check_output(file, problems)
        ks = sorted(set(k or (1, n)))
        if ks[-1] > n:
            raise ConfigError(f"pass@{ks[-1]} needs as many completions: -n is {n}")
        benchmarks: dict[str, Any] = {}
        for path in problems:
            name = _name(path)
            if name in benchmarks:
                raise DataError(f"two files are called {name}: evaluate them one by one")
            benchmarks[name] = tests.problems([path], problem_format, None if strict else skipped)[:limit]
        total = sum(map(len, benchmarks.values()))
        sampling = Sampling(temperature, top_p, top_k, max_tokens, instruct)
        if server is not None:
            complete, called = server_completer(server, sampling, model=model, api_key=api_key)
        else:
            without_loading_bars()
            called = policy_model or ""
            complete = transformers_completer(policy_of(called), sampling, seed=seed)
        with rate_bar("sampling", total * n) as advance:
            threads = requests if server is not None else 1
            written = generate(
                benchmarks,
                complete,
                output,
                n=n,
                sampling=sampling,
                model=called,
                threads=threads,
                progress=advance,
            )
        known = [problem for given in benchmarks.values() for problem in given]
        with tests.executors() as (executor, _), rate_bar("running tests", None) as advance:
            verified = verify_rollouts(
                read_rollouts(written, "jsonl"),
                known,
                verdicts,
                executor=executor,
                extraction=extraction,
                settings=tests.settings,
                progress=advance,
            )
        measured = summarise((row for _, _, row in rows_of(verdicts)), n=n, ks=ks)
        report = {
            "model": called,
            "extraction": extraction,
            "sampling": asdict(sampling),
            "benchmarks": {name: asdict(one) for name, one in measured.items()},
        }
        write_text(report_file, json.dumps(report, indent=2) + "\n")
    Terminal().print(_table(measured, called, ks))
    faults = sum((Counter(one.faults) for one in measured.values()), Counter())
    print_faults(faults, verified.examples, f"delete {verdicts} and run again; the completions stay")
    say(f"wrote {report_file}")
    typer.echo(json.dumps(report))
    if skipped.count:
        raise typer.Exit(3)


def _name(path: str) -> str:
    return stem(Path(path.partition(":")[0]).name)


def _table(measured: "dict[str, Benchmark]", model: str, ks: list[int]) -> Any:
    n = next(iter(measured.values())).n
    head = ("problems", f"Avg@{n}", "95%", *(f"pass@{k}" for k in ks), "no code", "no verdict")
    title = f"{model}, {n} completions a problem, in percent"
    table = number_table("benchmark", *head, title=title, title_justify="left")
    table.columns[0].overflow = "fold"
    for name, one in measured.items():
        average = one.average
        table.add_row(
            name,
            str(one.problems),
            f"{100 * average.value:.1f}",
            f"{100 * average.low:.1f}-{100 * average.high:.1f}",
            *(f"{100 * one.pass_at[k].value:.1f}" for k in ks),
            f"{100 * one.invalid:.1f}",
            f"{100 * sum(one.faults.values()) / (one.problems * one.n):.1f}",
        )
    return table

"""`codescaler verify`."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Exit, Option

from codescaler_plugin.cli.options import REWARD_EXTRACTION, Columns, Limit, NeededTests, Rollouts, Strict, grouped
from codescaler_plugin.cli.rows import total_rows
from codescaler_plugin.cli.sandbox_options import ProblemFormat, SandboxOptions, Service, print_faults
from codescaler_plugin.cli.terminal import Closing, Skipped, print_counts, progress_bar, reported
from codescaler_plugin.data.columns import parsed_columns
from codescaler_plugin.data.outputs import check_output

if TYPE_CHECKING:
    from codescaler_plugin.preference.verification import VerificationReport


@grouped
def verify(
    source: Rollouts,
    tests: NeededTests,
    output: Annotated[Path, Option(help="Verdicts, JSONL; an interrupted run resumes here.")] = Path("verdicts.jsonl"),
    extraction: Annotated[
        str,
        Option(
            envvar="CODESCALER_EXTRACTION",
            help="Block selection: single, last, first or bare; continue: problem + completion.",
        ),
    ] = REWARD_EXTRACTION,
    columns: Columns = None,
    rollout_format: Annotated[
        str, Option(help="Form of the rollouts: auto, trl, openrlhf, verl, alpaca, recipe or jsonl.")
    ] = "auto",
    prompt_template: Annotated[
        str | None, Option(help="The policy's tokenizer or Jinja file, for prompts of an unknown template.")
    ] = None,
    once: Annotated[bool, Option("--once", help="Run no program twice: flaky programs go unnoticed.")] = False,
    skip_unknown: Annotated[
        bool, Option("--skip-unknown", help="Leave out rollouts of problems that are not given.")
    ] = False,
    limit: Limit = None,
    strict: Strict = False,
    problem_format: ProblemFormat = "auto",
    *,
    sandbox: SandboxOptions,
    executor: Service = None,
) -> None:
    """Run each rollout's code against the tests of its problem.

    Each output line is the rollout with code, status, passed, tests_passed,
    tests_total, detail, seconds, flaky, fault, comparison and in_process. A
    fault means that there is no verdict: the program may be right, and the
    summary names the next step. Programs run in a sandbox without network and
    without your files, with limited time, memory and processes; the start
    prints what this machine cannot enforce. With --executor they run on a
    service. Interrupted runs resume with the same command.

    Example: codescaler verify rollouts.jsonl --tests problems.jsonl

    Exit code: 0 done; 1 an error, or with --strict a bad line; 3 some rows were
    skipped.
    """
    from codescaler_plugin.data.rollouts import read_rollouts
    from codescaler_plugin.preference.verification import verify_rollouts
    from codescaler_plugin.text.derivation import template_of

    skipped, closing = Skipped(), Closing()
    settings = sandbox.settings
    if executor is not None:
        settings["executor"] = "service"  # not its address, which may change
    with reported():
        check_output(output, [source, *tests])
        mapping, on_bad = parsed_columns(columns), None if strict else skipped
        template = template_of(prompt_template) if prompt_template is not None else None
        tested = sandbox.problems(tests, problem_format, on_bad)
        rollouts = read_rollouts(source, rollout_format, on_bad=on_bad, template=template, columns=mapping)
        with (
            sandbox.executors(second_run=not once, service=executor) as (first, second),
            progress_bar("verifying", total_rows([source], limit)) as advance,
        ):
            report = verify_rollouts(
                islice(rollouts, limit),
                tested,
                output,
                executor=first,
                second=second,
                extraction=extraction,
                settings=settings,
                skip_unknown=skip_unknown,
                progress=advance,
            )
        _print_report(report, skipped.count)
        counts = {"passed": report.passed, "without a verdict": sum(report.faults.values())}
        counts |= {"of unknown problems": report.unknown, "skipped": skipped.count}
        total = report.rows + report.unknown + skipped.count
        closing.say("verified", report.rows, "rollouts", of=total, counts=counts, written=[output])
    if skipped.count or report.unknown:
        raise Exit(3)


def _print_report(report: "VerificationReport", skipped: int) -> None:
    summary = {f"status {status}": count for status, count in report.statuses.most_common()}
    summary |= {"passed": report.passed, "passed once, not twice (flaky)": report.flaky}
    summary |= {f"failed: {kind}": count for kind, count in report.failures.most_common(8)}
    summary |= {f"no verdict: {fault}": count for fault, count in report.faults.most_common()}
    summary |= {f"compared by {name}": count for name, count in report.comparisons.most_common()}
    summary["graded in the program's own process"] = report.in_process
    summary["left out, problem unknown"] = report.unknown
    summary["skipped rows"] = skipped
    print_counts(
        f"{report.rows:,} rollouts verified, {report.resumed:,} of them before; {report.executed:,} programs run",
        summary,
    )
    print_faults(report.faults, report.examples, "run again into another output")

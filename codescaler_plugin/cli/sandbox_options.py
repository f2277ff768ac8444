"""Options of every command that runs programs against tests, and its messages on programs without a verdict."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Any

from typer import Option

from codescaler_plugin.cli.terminal import Skipped, say
from codescaler_plugin.errors import DataError
from codescaler_plugin.execution.executor import Executor
from codescaler_plugin.execution.jobs import MEMORY_MB, TIMEOUT
from codescaler_plugin.records import Comparison, Fault, Problem
from codescaler_plugin.safety import one_line

PANEL = "Tests"

Service = Annotated[
    str | None,
    Option(metavar="URL", help="SandboxFusion service to run the programs; else this machine.", rich_help_panel=PANEL),
]
ProblemFormat = Annotated[
    str, Option(help="Form of the problems, such as mbpp; else told by their columns.", rich_help_panel=PANEL)
]

_NEXT = {  # the next step after each fault
    Fault.TIMEOUT: "Time ran out on a busy machine: give fewer --workers, or a larger --timeout",
    Fault.MISSING_PACKAGE: "The sandbox has no such package: give it by --package NAME, as in --package numpy",
    Fault.TEST_ERROR: "These tests cannot run, or test nothing: correct the tests of the problem",
    Fault.UNREADABLE_RESULT: "A result could not be sent or read: look at what the test asks the program to return",
    Fault.KILLED: "The program was killed from outside, perhaps for lack of memory: give fewer --workers",
}


@dataclass(frozen=True, kw_only=True)
class SandboxOptions:
    """A group of options for running programs and comparing their results, see `options.grouped`."""

    panel = PANEL

    comparison: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help=f"Comparison of results: {', '.join(Comparison)}; else that of each data set's own grader.",
        ),
    ] = None
    timeout: Annotated[float, Option(min=0.1, help="Seconds per program; with stdin tests, per test.")] = TIMEOUT
    memory: Annotated[int, Option(min=64, help="MiB per process of a program.")] = MEMORY_MB
    workers: Annotated[int | None, Option(min=1, help="Programs at a time; else one per core.")] = None
    package: Annotated[
        list[str] | None, Option(metavar="NAME", help="Package that programs may import, as numpy; repeatable.")
    ] = None
    require_isolation: Annotated[
        bool, Option("--require-isolation", help="Fail if the sandbox cannot isolate programs fully.")
    ] = False

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that verdicts depend on."""
        return {"timeout": self.timeout, "memory_mb": self.memory, "packages": sorted(self.package or ())}

    def executors(
        self, *, second_run: bool = False, service: str | None = None
    ) -> AbstractContextManager[tuple[Executor, Executor | None]]:
        """See `verification.executors`."""
        from codescaler_plugin.preference.verification import executors

        settings = {**self.settings, "workers": self.workers, "require_isolation": self.require_isolation}
        return executors(second_run=second_run, service=service, **settings)

    def problems(
        self, paths: Sequence[str], format_: str, skipped: Skipped | None, columns: Mapping[str, str] | None = None
    ) -> list[Problem]:
        """The problems of all files. A bad row is named and skipped, or an error if `skipped` is None."""
        from codescaler_plugin.data.problems import read_problems

        problems: list[Problem] = []
        for path in paths:
            before = 0 if skipped is None else skipped.count
            rows = list(read_problems(path, format_, comparison=self.comparison, on_bad=skipped, columns=columns))
            if skipped is not None and not rows and skipped.count > before:
                count = skipped.count - before
                raise DataError(f"{path}: none of its {count:,} rows is a problem with tests, see above")
            problems += rows
        return problems


def print_faults(faults: Mapping[str, int], examples: Mapping[str, str], again: str) -> None:
    """Print the number of programs with each fault, an example, and the next step; `again` ends that sentence."""
    for fault, count in faults.items():
        example = examples.get(fault)
        detail = f", such as {one_line(example)!r}" if example else ""
        say(f"no verdict ({fault}): {count:,}{detail}. {_NEXT[Fault(fault)]}; then {again}.", "yellow")

"""Problems with tests, from the files that others publish: one adapter per form, one `Problem` out.

| format | rows of | tests become | compared |
|---|---|---|---|
| `humaneval` | HumanEval and its kin, HumanEvalPack, EvalPlus' on the hub: `entry_point`, `test` | one ScriptTest | |
| `evalplus` | HumanEvalPlus.jsonl, MbppPlus.jsonl: `base_input`, `plus_input`, `atol` | one ScriptTest | |
| `mbpp` | MBPP, full and sanitized: `test_list`; MBPP+ on the hub: `test` | a ScriptTest per assertion; one | |
| `leetcode` | LeetCodeDataset: `prompt` (imports), `query`, `entry_point`, `test` | one ScriptTest | |
| `bigcodebench` | BigCodeBench: `complete_prompt`, `entry_point`, `test` (unittest) | one ScriptTest | |
| `kodcode` | KodCode: `question`, `solution`, `test` (pytest), `test_info` | one ScriptTest | |
| `acecode` | AceCode: `question`, `test_cases` | a ScriptTest per assertion | |
| `livecodebench` | LiveCodeBench: `public_`, `private_test_cases` | StdioTest; CallTest | decimal_lines; allclose |
| `livebench` | LiveBench's coding: `turns`, LiveCodeBench's tests, the rest in `original_json` | the same | the same |
| `codecontests` | CodeContests: `public_tests`, `private_tests`, `generated_tests` | StdioTest | tokens |
| `codecontests_plus` | CodeContests+: none, its checkers are C++ | | |
| `codeforces` | open-r1's: `official_tests`, `generated_checker` | StdioTest | checker; tokens |
| `cure` | CURE's: `question`, `test_input`, `test_output` | StdioTest | tokens |
| `taco` | APPS, TACO: `input_output` | StdioTest; CallTest | tokens; allclose |
| `deepcoder` | DeepCoder's `tests`, verl's `ground_truth` | StdioTest; CallTest; ScriptTest | as their source |
| `synthetic` | SYNTHETIC-1, open-r1's problems: `verification_info` | StdioTest; CallTest | tokens; allclose |
| `pairs` | the miniature: `problem`, `tests` as [argument, expected] | CallTest | tokens |

Limits of CPU time are those of the data set's own grader; those that a problem states are for compiled languages and
count five times (`formats.programs`). A row's own column `comparison` names another comparison.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from codescaler_plugin.data.formats import programs, scripts
from codescaler_plugin.data.formats.columns import Row, parsed, plain_row
from codescaler_plugin.data.formats.evalplus import evalplus
from codescaler_plugin.data.rollouts import Bad, pass_over, rows_of
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.records import Comparison, Problem

_ADAPTERS: dict[str, Callable[[Row], Problem]] = {
    "humaneval": scripts.humaneval,
    "evalplus": evalplus,
    "mbpp": scripts.mbpp,
    "leetcode": scripts.leetcode,
    "bigcodebench": scripts.bigcodebench,
    "kodcode": scripts.kodcode,
    "acecode": scripts.acecode,
    "livecodebench": programs.livecodebench,
    "livebench": programs.livebench,
    "codecontests": programs.codecontests,
    "codecontests_plus": programs.codecontests_plus,
    "codeforces": programs.codeforces,
    "cure": programs.cure,
    "taco": programs.taco,
    "deepcoder": programs.deepcoder,
    "synthetic": programs.synthetic,
    "pairs": programs.pairs,
}
FORMATS = ("auto", *_ADAPTERS)


def read_problems(
    path: str | Path,
    format: str = "auto",  # noqa: A002
    *,
    comparison: str | None = None,
    on_bad: Bad | None = None,
) -> Iterator[Problem]:
    """The problems of a file, a folder, or a dataset, one at a time; see the table above.

    Args:
        path: a file of any form that `data.rows` reads; a folder of such; `datasets` on disk or a hub id
            (`owner/name`, with `:split` if it has several).
        format: one of `FORMATS`; `auto` tells by the columns of each row.
        comparison: of results, for all problems, one of `Comparison`; None: the data set's own.
        on_bad: called with a message for a row that is no problem, or has no tests; the row is passed over. None: an
            error.

    A problem without an id gets the file's name and the row's number.

    Raises:
        ConfigError: an unknown format or comparison, or a path that is not there.
        DataError: a row that is no problem; it is named.

    Example:
        >>> skipped = []
        >>> problems = list(read_problems("mbpp.jsonl", on_bad=skipped.append))
    """
    if format != "auto" and format not in _ADAPTERS:
        raise ConfigError(f"format is {format!r}: expected one of {', '.join(FORMATS)}")
    if comparison is not None and comparison not in list(Comparison):
        raise ConfigError(f"comparison is {comparison!r}: expected one of {', '.join(Comparison)}")
    for number, (_, place, row) in enumerate(rows_of(path, on_bad=on_bad)):
        try:
            problem = _problem(plain_row(row), format, comparison)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, SyntaxError, RecursionError) as error:
            pass_over(f"{place}: {'no column ' if isinstance(error, KeyError) else ''}{error}", on_bad, error)
            continue
        yield problem if problem.id else replace(problem, id=f"{Path(path).name}/{number}")


def _problem(row: Row, format_: str, comparison: str | None) -> Problem:
    problem = _ADAPTERS[_format_of(row) if format_ == "auto" else format_](row)
    if not problem.tests:
        raise DataError("it has no tests")
    if named := comparison or row.get("comparison"):
        if named not in list(Comparison):
            raise DataError(f"comparison is {named!r}: expected one of {', '.join(Comparison)}")
        problem = replace(problem, comparison=Comparison(named))
    if problem.comparison is Comparison.CHECKER and not problem.checker:
        raise DataError("comparison is 'checker', and the problem has none")
    return problem


def _format_of(row: Row) -> str:
    columns = {name for name, value in row.items() if value is not None}
    for name, needed in (
        ("livecodebench", {"public_test_cases", "question_content"}),
        ("livecodebench", {"private_test_cases", "question_content"}),
        ("livebench", {"public_test_cases", "turns", "original_json"}),
        ("codecontests_plus", {"test_cases", "checker", "description"}),
        ("codeforces", {"official_tests"}),
        ("codecontests", {"description", "public_tests"}),
        ("codecontests", {"description", "private_tests"}),
        ("cure", {"question", "test_input", "test_output"}),
        ("evalplus", {"base_input", "entry_point", "prompt"}),
        ("leetcode", {"test", "entry_point", "query"}),
        ("bigcodebench", {"test", "entry_point", "complete_prompt"}),
        ("bigcodebench", {"test", "entry_point", "instruct_prompt"}),
        ("humaneval", {"test", "entry_point", "prompt"}),
        ("mbpp", {"test_list"}),
        ("kodcode", {"test", "question", "solution"}),
        ("kodcode", {"test", "question", "test_info"}),
        ("acecode", {"question", "test_cases"}),
        ("synthetic", {"verification_info"}),
        ("deepcoder", {"reward_model"}),
    ):
        if needed <= columns:
            return name
    if "tests" in columns:
        tests = parsed(row["tests"])
        return "pairs" if isinstance(tests, list) and tests and isinstance(tests[0], list) else "deepcoder"
    if "input_output" in columns:
        return "taco"
    named = ", ".join(repr(name) for name in row if name in columns)
    raise DataError(f"no known form of problem has the columns {named}; name the format")

"""Reads problems with tests from published data sets: one adapter per format makes a `Problem` of a row.

| format | rows of | tests become | compared |
|---|---|---|---|
| `humaneval` | HumanEval, HumanEvalPack, HumanEval+ on the hub: `entry_point`, `test` | one ScriptTest | |
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

Limits of CPU time are those of the data set's own grader. Limits that a problem states are for compiled languages and
count five times (`formats.programs`). A column `comparison` of a row overrides the comparison.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from codescaler_plugin.data.columns import Bad, Columns, NoColumnError, made_of, shown_columns
from codescaler_plugin.data.formats import programs, scripts
from codescaler_plugin.data.formats.columns import Row, parsed, plain_row
from codescaler_plugin.data.formats.evalplus import evalplus
from codescaler_plugin.data.rollouts import rows_of
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.records import Comparison, Problem

_FORMATS: dict[str, tuple[Callable[[Row], Problem], *tuple[set[str], ...]]] = {
    # Adapter, and sets of columns. A row with all columns of one set is of this format; the first that matches counts.
    "livecodebench": (
        programs.livecodebench,
        {"public_test_cases", "question_content"},
        {"private_test_cases", "question_content"},
    ),
    "livebench": (programs.livebench, {"public_test_cases", "turns", "original_json"}),
    "codecontests_plus": (programs.codecontests_plus, {"test_cases", "checker", "description"}),
    "codeforces": (programs.codeforces, {"official_tests"}),
    "codecontests": (programs.codecontests, {"description", "public_tests"}, {"description", "private_tests"}),
    "cure": (programs.cure, {"question", "test_input", "test_output"}),
    "evalplus": (evalplus, {"base_input", "entry_point", "prompt"}),
    "leetcode": (scripts.leetcode, {"test", "entry_point", "query"}),
    "bigcodebench": (
        scripts.bigcodebench,
        {"test", "entry_point", "complete_prompt"},
        {"test", "entry_point", "instruct_prompt"},
    ),
    "humaneval": (scripts.humaneval, {"test", "entry_point", "prompt"}),
    "mbpp": (scripts.mbpp, {"test_list"}),
    "kodcode": (scripts.kodcode, {"test", "question", "solution"}, {"test", "question", "test_info"}),
    "acecode": (scripts.acecode, {"question", "test_cases"}),
    "synthetic": (programs.synthetic, {"verification_info"}),
    "deepcoder": (programs.deepcoder, {"reward_model"}),
    "taco": (programs.taco,),
    "pairs": (programs.pairs,),
}
FORMATS = ("auto", *_FORMATS)


def read_problems(
    path: str | Path,
    format: str = "auto",  # noqa: A002
    *,
    comparison: str | None = None,
    on_bad: Bad | None = None,
    columns: Columns | None = None,
) -> Iterator[Problem]:
    """Read the problems of a file, a folder or a dataset, one at a time; for the formats see the table above.

    A problem without an id gets the name of the file and the number of the row.

    Args:
        path: a file of any form that `data.rows` reads, a folder of such files, a folder of `datasets.save_to_disk`,
            or a hub id (`owner/name`, or `owner/name:split` if the dataset has several splits).
        format: one of `FORMATS`. The default `auto` detects the format by the columns of each row.
        comparison: comparison of results for all problems, one of `Comparison`. None: that of the data set.
        on_bad: called with a message for each row that is not a problem or has no tests, which is then skipped. None:
            such a row is an error.
        columns: the file's own names, as `{"problem": "task", "tests": "cases"}`. None: those of the formats.

    Raises:
        ConfigError: an unknown format or comparison, nothing at `path`, or a column of `columns` that the file lacks.
        DataError: a row that is not a problem; the message names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "mine.jsonl")
        ...     size = file.write_text('{"problem": "Double n.", "entry_point": "double", "tests": [[2, 4], [3, 6]]}')
        ...     [problem] = read_problems(file)
        >>> problem.id, problem.entry_point, len(problem.tests)
        ('mine.jsonl/0', 'double', 2)
    """
    if format not in FORMATS:
        raise ConfigError(f"format is {format!r}: expected one of {', '.join(FORMATS)}")
    if comparison is not None and comparison not in list(Comparison):
        raise ConfigError(f"comparison is {comparison!r}: expected one of {', '.join(Comparison)}")
    rows = rows_of(path, on_bad=on_bad, columns=columns)
    numbered = ((place, (index, row)) for index, (_, place, row) in enumerate(rows))
    file = Path(path).name
    yield from made_of(numbered, lambda item: _named_problem(item[0], item[1], format, comparison, file), on_bad)


def _named_problem(index: int, row: Row, format_: str, comparison: str | None, file: str) -> Problem:
    """The problem of a row, named after its file and number if it has no id. Whatever a row lacks is a DataError."""
    try:
        problem = _problem(plain_row(row), format_, comparison)
    except DataError:
        raise
    except KeyError as error:
        raise DataError(f"no column {error}") from error
    except (TypeError, ValueError, AttributeError, IndexError, SyntaxError, RecursionError) as error:
        raise DataError(str(error)) from error
    return problem if problem.id else replace(problem, id=f"{file}/{index}")


def _problem(row: Row, format_: str, comparison: str | None) -> Problem:
    problem = _FORMATS[_format_of(row) if format_ == "auto" else format_][0](row)
    if not problem.tests:
        raise DataError("it has no tests")
    if override := comparison or row.get("comparison"):
        if override not in list(Comparison):
            raise DataError(f"comparison is {override!r}: expected one of {', '.join(Comparison)}")
        problem = replace(problem, comparison=Comparison(override))
    if problem.comparison is Comparison.CHECKER and not problem.checker:
        raise DataError("comparison is 'checker', and the problem has none")
    return problem


def _format_of(row: Row) -> str:
    columns = {name for name, value in row.items() if value is not None}
    for name, (_, *detected_by) in _FORMATS.items():
        if any(needed <= columns for needed in detected_by):
            return name
    if "tests" in columns:
        tests = parsed(row["tests"])
        return "pairs" if isinstance(tests, list) and tests and isinstance(tests[0], list) else "deepcoder"
    if "input_output" in columns:
        return "taco"
    listed = shown_columns({name: value for name, value in row.items() if name in columns})
    raise NoColumnError(f"no known form of problem has the columns {listed}; name the format, or yours by `columns=`")

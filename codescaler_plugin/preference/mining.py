"""Preference pairs from verdicts: for one problem, a program that passes all tests and one that fails at least one.

The paper does not publish how its pairs were mined. The choices here (duplicates, pairs per problem, near misses,
contamination) are rules with settings, and the report counts what each rule removed. Nothing is executed.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Unpack

from codescaler_plugin.data.columns import shown_columns
from codescaler_plugin.data.matching import problem_key
from codescaler_plugin.data.pairs import checked_margin
from codescaler_plugin.data.rollouts import fault_of, problem_id_of
from codescaler_plugin.errors import DataError
from codescaler_plugin.preference.mining_report import MiningReport, add_count
from codescaler_plugin.preference.mining_rules import MiningRule, MiningSettings, PairPool, Program, apply_rules
from codescaler_plugin.records import Fault, PreferencePair, Status


def mine_pairs(
    verdicts: Iterable[Mapping[str, Any]], *, rules: Iterable[MiningRule] = (), **settings: Unpack[MiningSettings]
) -> tuple[list[PreferencePair], MiningReport]:
    """Mine preference pairs from verdicts: the pairs in the order of their training steps, and a report.

    Two programs are the same if their AST fingerprints are equal. Of the same programs of a problem the earliest
    stays. A program that both passes and fails is dropped, and a program is chosen, or rejected, for one problem only.
    Two problems are the same if their ids and texts are equal, white space aside. The programs of a problem are used
    about equally often.

    Args:
        verdicts: rows with `problem`, `code`, `status`, `passed`, and if known `problem_id`, `tests_passed`,
            `tests_total`, `flaky`, `fault`, `step`, `source`, as `verify_rollouts` writes them.
        rules: further rules, which run after duplicates are removed and before pairs are sampled.
        evaluation: name -> problem texts of evaluation sets. Problems that they hold are removed; see
            `decontamination.contaminated`. The default is no set.
        pairs_per_problem: largest number of pairs of one problem. The default is 8; None: no limit.
        hard: target share in [0, 1] of pairs whose rejected side passes at least half of the tests. The share reached
            is lower where problems have too few such programs. None: as they come.
        max_pairs: largest number of pairs. Every problem's first pair is taken first, then every second. None: no
            limit.
        held_out: chance in [0, 1) of each problem to be in the split `held_out`, by a hash of its text and the seed.
            Problems of nearly the same text are in one split. Of two or more problems, each split gets one.
        seed: seed of sampling and split. The same rows and seed give the same pairs. The default is 0.

    Raises:
        ConfigError: a setting out of its range.
        DataError: a row without these columns or with values of other types; the message has its number.

    Example:
        >>> row = {"problem": "Add one to n.", "status": "ok", "tests_total": 4}
        >>> pairs, report = mine_pairs([
        ...     row | {"code": "n += 1", "passed": True, "tests_passed": 4},
        ...     row | {"code": "n -= 1", "passed": False, "tests_passed": 1},
        ... ])
        >>> pairs[0].chosen, pairs[0].rejected, pairs[0].margin
        ('n += 1', 'n -= 1', 0.75)
    """
    report = MiningReport()
    pools = _pools(verdicts, report)
    report.problems = {
        "mixed": sum(bool(pool.passing and pool.failing) for pool in pools),
        "all pass": sum(not pool.failing for pool in pools),
        "all fail": sum(not pool.passing for pool in pools),
    }
    return apply_rules(pools, report, rules, **settings), report


def refine_pairs(
    pairs: Iterable[PreferencePair], *, rules: Iterable[MiningRule] = (), **settings: Unpack[MiningSettings]
) -> tuple[list[PreferencePair], MiningReport]:
    """Apply the rules of `mine_pairs` to existing pairs, such as CodeScalerPair-51K.

    The report counts pairs instead of programs. A pair is dropped if its problem already has it, if its two sides are
    the same program, or if another pair of the problem has its sides in reverse; then both are dropped. `hard` applies
    only to `max_pairs`, and `pairs_per_problem` is None by default. For the arguments see `mine_pairs`.

    Raises:
        ConfigError: a setting out of its range.
        DataError: a margin that is NaN or outside of (0, 1]; the message has the pair's number.
    """
    settings.setdefault("pairs_per_problem", None)
    report = MiningReport()
    given: dict[str, list[PreferencePair]] = {}
    for index, pair in enumerate(pairs):
        if pair.margin is not None:
            try:
                checked_margin(pair.margin)
            except DataError as error:
                raise DataError(f"pair {index}: {error}") from None
        given.setdefault(problem_key(pair.problem_id, pair.problem), []).append(pair)
        add_count(report.rollouts.setdefault(pair.source, {}), str(pair.step))
        report.rows += 1
    report.problems = {"mixed": len(given)}
    pools = [PairPool(same[0].problem, same[0].problem_id, pairs=same) for same in given.values()]
    return apply_rules(pools, report, rules, **settings), report


def _pools(verdicts: Iterable[Mapping[str, Any]], report: MiningReport) -> list[PairPool]:
    """The valid programs by problem and side. Of equal texts the earliest step stays."""
    pools: dict[str, PairPool] = {}
    keys: dict[tuple[str, str], str] = {}
    for index, row in enumerate(verdicts):
        fault = _checked(index, row)
        code, passed, step, source = row["code"], row["passed"], row.get("step"), row.get("source") or ""
        report.rows += 1
        add_count(report.rollouts.setdefault(source, {}), str(step))
        if row["status"] != Status.OK:
            add_count(report.invalid, row["status"])
            continue
        if fault is not None:
            report.drop(f"no verdict: {fault}")
            continue
        report.in_process += row.get("in_process") is True
        add_count(report.comparisons, str(row.get("comparison") or "scripts"))
        if row.get("flaky"):
            report.drop("flaky")
            continue
        total = row.get("tests_total") or 0
        pass_rate = (row.get("tests_passed") or 0) / total if total else None
        if not passed and pass_rate is not None:
            if pass_rate >= 1:
                report.drop("no passing rate")
                continue
            report.pass_rates[int(pass_rate * 10)] += 1
        named = problem_id_of(row), row["problem"]
        if named not in keys:  # folding the white space of a long text takes longer than all else here
            keys[named] = problem_key(*named)
        key = keys[named]
        if key not in pools:
            pools[key] = PairPool(named[1], named[0])
        side = pools[key].passing if passed else pools[key].failing
        program = side.get(code)
        if program is None:
            side[code] = Program(1.0 if passed else pass_rate, step, source)
            continue
        report.drop("same program")
        if step is not None and (program.step is None or step < program.step):
            program.step, program.source = step, source
    return list(pools.values())


def _checked(index: int, row: Mapping[str, Any]) -> Fault | None:
    """The fault of a row, once all of its columns are checked."""
    try:
        text, code, passed, _ = row["problem"], row["code"], row["passed"], row["status"]
    except KeyError as error:
        raise DataError(
            f"verdict {index} has no {error}: expected problem, code, status and passed, as `codescaler verify` "
            f"writes them: it has {shown_columns(row)}"
        ) from None
    if type(passed) is not bool or not isinstance(code, str) or not isinstance(text, str):
        raise DataError(
            f"verdict {index}: problem, code and passed are {text!r:.40}, {code!r:.40} and {passed!r:.40}: expected "
            "two texts and true or false"
        )
    step, source = row.get("step"), row.get("source") or ""
    tests, total = row.get("tests_passed") or 0, row.get("tests_total") or 0
    if not (isinstance(source, str) and all(type(number) is int for number in (step or 0, tests, total))):
        raise DataError(
            f"verdict {index}: tests_passed, tests_total, step and source are {tests!r:.40}, {total!r:.40}, "
            f"{step!r:.40} and {source!r:.40}: expected whole numbers and a text"
        )
    try:
        return fault_of(row)
    except DataError as error:
        raise DataError(f"verdict {index}: {error}") from None

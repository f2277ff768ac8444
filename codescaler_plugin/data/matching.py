"""Which problem a rollout, a pair or a candidate belongs to: by id, by text, and never one where the two disagree."""

from collections.abc import Iterable

from codescaler_plugin.data.rollouts import same_id_key
from codescaler_plugin.errors import DataError
from codescaler_plugin.records import Problem
from codescaler_plugin.text.lines import folded


def problem_key(problem_id: str, text: str) -> str:
    """A key that is equal for two mentions of one problem: the same id, and the same text but for white space.

    Example:
        >>> problem_key("p1", "Add  one. ") == problem_key("p1", "Add one.")
        True
    """
    return f"{problem_id}\0{folded(text)}"


class ProblemIndex:
    """Problems by id and by text; of texts, white space folded.

    Args:
        problems: with tests.
        unique_ids: whether two problems with one id are an error. False: the text tells them apart.

    Raises:
        DataError: two problems with one id.
    """

    def __init__(self, problems: Iterable[Problem], *, unique_ids: bool = True) -> None:
        self.problems: list[Problem] = []
        self._by_id: dict[str, list[Problem]] = {}
        self._by_key: dict[str, list[Problem]] = {}
        self._by_text: dict[str, list[Problem]] = {}
        for problem in problems:
            same = self._by_id.setdefault(problem.id, [])
            if same and unique_ids:
                raise DataError(f"two problems have the id {problem.id!r}: expected one; rename or remove one")
            same.append(problem)
            self.problems.append(problem)
            self._by_key.setdefault(same_id_key(problem.id), []).append(problem)
            self._by_text.setdefault(folded(problem.text), []).append(problem)

    def find(self, problem_id: str, text: str) -> Problem | None:
        """The problem of this id, or of this text where no problem has the id; None: there is none.

        `11` is the id of `MBPP/11` (`same_id_key`); where a problem is called `11`, too, the text tells them apart,
        and without one it is the exact id. An id may come with a text that no problem has, such as a prompt that puts
        more around it.

        Raises:
            DataError: id and text name different problems, or what is given names more than one.
        """
        exact = self._by_id.get(problem_id, []) if problem_id else []
        alike = self._by_key.get(same_id_key(problem_id), []) if problem_id else []
        named = exact or alike
        same = self._by_text.get(folded(text), [])
        found = _both(named, same) if same else named
        if same and not found and problem_id.isdecimal():  # of whichever data set
            found = _both(alike, same)
        if named and not found:
            raise DataError(
                f"problem_id {problem_id!r} is problem {named[0].id!r} ({_start(named[0])}), and the text is that of "
                f"problem {same[0].id!r} ({_start(same[0])}): expected one problem; correct the id, or leave it out"
            )
        found = found or same
        if len(found) > 1:
            ids = " and ".join(repr(problem.id) for problem in found[:4])
            raise DataError(
                f"{problem_id or folded(text)[:60]!r} may be any of {len(found)} problems, {ids}: give the whole "
                "problem_id of one, or leave the others out"
            )
        return found[0] if found else None


def _both(named: list[Problem], same: list[Problem]) -> list[Problem]:
    return [problem for problem in named if any(problem is one for one in same)]


def _start(problem: Problem) -> str:
    return repr(folded(problem.text)[:40])

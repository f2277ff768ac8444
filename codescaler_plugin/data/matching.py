"""Finds the problem of a rollout, a pair or a candidate, by id and by text. The two may not disagree."""

from collections.abc import Iterable

from codescaler_plugin.data.rollouts import same_id_key
from codescaler_plugin.errors import DataError
from codescaler_plugin.records import Problem
from codescaler_plugin.text.lines import folded


def problem_key(problem_id: str, text: str) -> str:
    """A key of a problem: equal for the same id and the same text, white space aside."""
    return f"{problem_id}\0{folded(text)}"


class ProblemIndex:
    """Problems by id and by text, with white space folded.

    With `unique_ids`, two problems with the same id are an error. Otherwise the text tells them apart.

    Example:
        >>> index = ProblemIndex([Problem("MBPP/11", "Add one.", ())])
        >>> index.find("11", "").id, index.find("", "Add  one.").id
        ('MBPP/11', 'MBPP/11')
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
        """The problem with this id, or with this text if no problem has the id. None: there is no such problem.

        `11` is the id of `MBPP/11` (`same_id_key`). If another problem is called `11`, the text decides between them,
        and without such a text the exact id does. With a known id the text may be unknown, as that of a prompt that
        puts more around the problem.
        """
        exact = self._by_id.get(problem_id, []) if problem_id else []
        similar = self._by_key.get(same_id_key(problem_id), []) if problem_id else []
        by_id = exact or similar
        by_text = self._by_text.get(folded(text), [])
        matches = _both(by_id, by_text) if by_text else by_id
        if by_text and not matches and problem_id.isdecimal():  # the number may be of another data set
            matches = _both(similar, by_text)
        if by_id and not matches:
            raise DataError(
                f"problem_id {problem_id!r} is problem {by_id[0].id!r} ({_start(by_id[0])}), and the text is that of "
                f"problem {by_text[0].id!r} ({_start(by_text[0])}): expected one problem; correct the id, or leave it "
                "out"
            )
        matches = matches or by_text
        if len(matches) > 1:
            ids = " and ".join(repr(problem.id) for problem in matches[:4])
            raise DataError(
                f"{problem_id or folded(text)[:60]!r} may be any of {len(matches)} problems, {ids}: give the whole "
                "problem_id of one, or leave the others out"
            )
        return matches[0] if matches else None


def _both(left: list[Problem], right: list[Problem]) -> list[Problem]:
    """The problems in both lists, by identity."""
    return [problem for problem in left if any(problem is other for other in right)]


def _start(problem: Problem) -> str:
    return repr(folded(problem.text)[:40])

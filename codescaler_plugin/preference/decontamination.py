"""Which problem texts are nearly the same, and which hold a problem of an evaluation set?

Exact, without MinHash and its chance of a miss: a set-similarity join with prefix filtering (Bayardo, Ma and Srikant,
2007) finds every pair of texts above a threshold, and at the size of a training set (tens of thousands of problems)
takes seconds. Texts are compared as words in lower case; signs and layout do not count.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil

WORDS = 5  # of a shingle, for near-duplicates
GRAM = 10  # words of an n-gram, for overlap: the training prompts of most recipes put text around the problem
NEAR = 0.7  # least Jaccard similarity of word 5-grams of a near-duplicate
OVERLAP = 0.5  # least share of the shorter text's word 10-grams; a text below ten words is one gram

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Contamination:
    """A problem that an evaluation set holds too.

    `value` is the Jaccard similarity of their word 5-grams (`near-duplicate`, at least 0.7), or the share of the
    shorter one's word 10-grams that the other has (`n-gram`, at least 0.5).
    """

    problem: str
    evaluation: str
    match: str
    kind: str
    value: float


def clusters(texts: Sequence[str]) -> list[int]:
    """The cluster of each text, as the index of its first member; texts of a similarity of `NEAR` share one.

    Similarity is the Jaccard index of word 5-grams. A cluster is closed under it: a chain of near texts is one.
    """
    found = list(range(len(texts)))
    members = {index: [index] for index in found}
    for left, right, _ in near_pairs([shingles(text) for text in texts], NEAR):
        first, other = sorted((found[left], found[right]))
        if first != other:
            for index in members[other]:
                found[index] = first
            members[first] += members.pop(other)
    return found


def contaminated(problems: Sequence[str], evaluation: Mapping[str, Sequence[str]]) -> dict[int, Contamination]:
    """The problems that stand in an evaluation set, by their index, each with its strongest match.

    Args:
        problems: n texts.
        evaluation: name of each set -> its problems.
    """
    held = [(name, text) for name, texts in evaluation.items() for text in texts]
    found: dict[int, Contamination] = {}

    def note(index: int, other: int, kind: str, value: float) -> None:
        if index not in found or found[index].value < value:
            name, text = held[other]
            found[index] = Contamination(problems[index], name, text, kind, round(value, 4))

    grams: dict[int, list[int]] = defaultdict(list)
    sizes, widths = [], set()
    for other, (_, text) in enumerate(held):
        of_text, width = _grams(text)
        sizes.append(len(of_text))
        widths.add(width)
        for gram in of_text:
            grams[gram].append(other)
    for index, problem in enumerate(problems):
        mine = {width: _grams(problem, width)[0] for width in widths}
        shared: Counter[int] = Counter()
        for of_problem in mine.values():
            for gram in grams.keys() & of_problem:
                shared.update(grams[gram])
        for other, count in shared.items():
            value = count / min(sizes[other], len(mine.get(GRAM) or mine[max(mine)]) or 1)
            if value >= OVERLAP:
                note(index, other, "n-gram", min(value, 1.0))
    against = [shingles(text) for _, text in held]
    for index, other, value in near_pairs([shingles(text) for text in problems] if held else [], NEAR, against):
        note(index, other, "near-duplicate", value)
    return found


def shingles(text: str) -> frozenset[int]:
    """Hashes of the word 5-grams of a text; of a shorter one, of all its words."""
    return _grams(text, WORDS)[0]


def near_pairs(
    sets: Sequence[frozenset[int]], threshold: float, against: Sequence[frozenset[int]] | None = None
) -> Iterator[tuple[int, int, float]]:
    """Every pair (i, j, similarity) of sets whose Jaccard index is at least `threshold`, in (0, 1].

    Both of `sets`, i < j; or i of `sets` and j of `against`. Empty sets are like nothing. Two such sets share one of
    the first |x| - ceil(t |x|) + 1 members of each in any common order; with rare members first, few others do.
    Members that no other set has come before all, and need no place in the index.
    """
    frequency = Counter(chain.from_iterable(sets if against is None else against))
    index: dict[int, list[int]] = defaultdict(list)
    elsewhere = {member for member, count in frequency.items() if count > (against is None)}

    def rare(one: frozenset[int]) -> list[int]:
        common = sorted(sorted(elsewhere & one), key=frequency.__getitem__)
        return common[: max(0, len(common) - ceil(threshold * len(one)) + 1)]

    known = sets if against is None else against
    for place, one in enumerate(against or ()):
        for member in rare(one):
            index[member].append(place)
    for new, mine in enumerate(sets):
        members = rare(mine) if mine else []
        for old in {place for member in members if member in index for place in index[member]}:
            shared = len(mine & known[old])
            similarity = shared / (len(mine) + len(known[old]) - shared)
            if similarity >= threshold:
                yield (old, new, similarity) if against is None else (new, old, similarity)
        if against is None:
            for member in members:
                index[member].append(new)


def _grams(text: str, width: int = GRAM) -> tuple[frozenset[int], int]:
    """Hashes of the word n-grams of a text, and their width: `width`, or that of the whole text if it is shorter."""
    words = _WORD.findall(text.lower())
    width = min(width, len(words))
    if not width:
        return frozenset(), 0
    return frozenset(map(hash, zip(*(words[at:] for at in range(width)), strict=False))), width

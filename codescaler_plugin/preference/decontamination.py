"""Finds problem texts that are nearly the same, and problems that an evaluation set holds.

The search is exact, unlike MinHash: a set-similarity join with prefix filtering (Bayardo, Ma and Srikant, 2007) finds
every pair of texts above a threshold and takes seconds for tens of thousands of problems. Texts are compared as words
in lower case, so punctuation and layout do not count.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil

SHINGLE_WORDS = 5  # for near-duplicates
NGRAM_WORDS = 10  # for contamination: the training prompts of most recipes put text around the problem
MIN_SIMILARITY = 0.7  # Jaccard index of the word 5-grams of near-duplicates
MIN_SHARED = 0.5  # share of the shorter text's word 10-grams; a text below ten words is one gram

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Contamination:
    """A problem that the evaluation set `evaluation` holds as well, with the text `match`.

    For a near-duplicate, `value` is the Jaccard index of the word 5-grams; for an n-gram, the share of the shorter
    text's word 10-grams that the other text has.
    """

    problem: str
    evaluation: str
    match: str
    kind: str  # `near-duplicate` or `n-gram`
    value: float


def clusters(texts: Sequence[str]) -> list[int]:
    """The cluster of each text, as the index of the cluster's first member.

    Texts whose word 5-grams have a Jaccard index of at least `MIN_SIMILARITY` share a cluster, and so does a chain of
    such texts.
    """
    cluster = list(range(len(texts)))
    members = {index: [index] for index in cluster}
    for left, right, _ in near_pairs([shingles(text) for text in texts], MIN_SIMILARITY):
        first, other = sorted((cluster[left], cluster[right]))
        if first != other:
            for index in members[other]:
                cluster[index] = first
            members[first] += members.pop(other)
    return cluster


def contaminated(problems: Sequence[str], evaluation: Mapping[str, Sequence[str]]) -> dict[int, Contamination]:
    """The problems that an evaluation set (name -> texts) holds: the index of each, with its strongest match."""
    held = [(name, text) for name, texts in evaluation.items() for text in texts]
    matches: dict[int, Contamination] = {}

    def note(index: int, other: int, kind: str, value: float) -> None:
        if index not in matches or matches[index].value < value:
            name, text = held[other]
            matches[index] = Contamination(problems[index], name, text, kind, round(value, 4))

    holders: dict[int, list[int]] = defaultdict(list)  # by gram
    sizes, widths = [], set()
    for other, (_, text) in enumerate(held):
        grams, width = _grams(text)
        sizes.append(len(grams))
        widths.add(width)
        for gram in grams:
            holders[gram].append(other)
    for index, problem in enumerate(problems):
        own = {width: _grams(problem, width)[0] for width in widths}
        shared: Counter[int] = Counter()
        for grams in own.values():
            for gram in holders.keys() & grams:
                shared.update(holders[gram])
        for other, count in shared.items():
            value = count / min(sizes[other], len(own.get(NGRAM_WORDS) or own[max(own)]) or 1)
            if value >= MIN_SHARED:
                note(index, other, "n-gram", min(value, 1.0))
    against = [shingles(text) for _, text in held]
    sets = [shingles(text) for text in problems] if held else []
    for index, other, value in near_pairs(sets, MIN_SIMILARITY, against):
        note(index, other, "near-duplicate", value)
    return matches


def shingles(text: str) -> frozenset[int]:
    """Hashes of the word 5-grams of a text; of a shorter text, of all its words as one gram."""
    return _grams(text, SHINGLE_WORDS)[0]


def near_pairs(
    sets: Sequence[frozenset[int]], threshold: float, against: Sequence[frozenset[int]] | None = None
) -> Iterator[tuple[int, int, float]]:
    """Every (i, j, similarity) of two sets whose Jaccard index is at least `threshold`; empty sets match nothing.

    Two such sets share one of the first |x| - ceil(t |x|) + 1 members of each, in any common order. With rare members
    first, few other sets share them. Members that only one set has come before all and need no entry in the index.
    With `against`, i is an index of `sets` and j one of `against`. Without it, both are indices of `sets`, i < j.
    """
    frequency = Counter(chain.from_iterable(sets if against is None else against))
    holders: dict[int, list[int]] = defaultdict(list)
    elsewhere = {member for member, count in frequency.items() if count > (against is None)}

    def rare(members: frozenset[int]) -> list[int]:
        common = sorted(sorted(elsewhere & members), key=frequency.__getitem__)
        return common[: max(0, len(common) - ceil(threshold * len(members)) + 1)]

    known = sets if against is None else against
    for index, members in enumerate(against or ()):
        for member in rare(members):
            holders[member].append(index)
    for new, members in enumerate(sets):
        prefix = rare(members) if members else []
        for old in {index for member in prefix if member in holders for index in holders[member]}:
            shared = len(members & known[old])
            similarity = shared / (len(members) + len(known[old]) - shared)
            if similarity >= threshold:
                yield (old, new, similarity) if against is None else (new, old, similarity)
        if against is None:
            for member in prefix:
                holders[member].append(new)


def _grams(text: str, width: int = NGRAM_WORDS) -> tuple[frozenset[int], int]:
    """Hashes of the word n-grams of a text, and their width: `width`, or that of the whole text if it is shorter."""
    words = _WORD.findall(text.lower())
    width = min(width, len(words))
    if not width:
        return frozenset(), 0
    return frozenset(map(hash, zip(*(words[offset:] for offset in range(width)), strict=False))), width

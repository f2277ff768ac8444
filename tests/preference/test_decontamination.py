"""Near-duplicates are found exactly, and problems of an evaluation set in long prompts."""

from hypothesis import given, settings
from hypothesis import strategies as st

from codescaler_plugin.preference.decontamination import clusters, contaminated, near_pairs, shingles


@settings(deadline=None)
@given(
    st.lists(st.frozensets(st.integers(0, 12), max_size=8), max_size=12), st.sampled_from([0.3, 0.5, 0.7, 0.99, 1.0])
)
def test_the_join_finds_exactly_the_near_pairs(sets: list[frozenset[int]], threshold: float) -> None:
    expected = {
        (i, j)
        for j in range(len(sets))
        for i in range(j)
        if sets[i] and sets[j] and len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold
    }
    assert {(i, j) for i, j, _ in near_pairs(sets, threshold)} == expected


def test_texts_that_differ_in_case_layout_and_a_word_are_one_cluster() -> None:
    text = "Given a list of integers, return the sum of all even numbers that are larger than ten and below ninety."
    assert clusters([text, "Something else.", text.upper() + "\n\n", text + " Thanks."]) == [0, 1, 0, 0]
    assert clusters(["", "", "a"]) == [0, 1, 2]
    assert shingles("Only three words") == shingles("only  THREE words!")


def test_a_short_evaluation_text_is_found_in_a_long_prompt() -> None:
    found = contaminated(
        ["You are a coder. Write a function to add two numbers. Use Python.", "Write a function to add two lists."],
        {"short": ["Write a function to add two numbers."]},
    )
    assert {index: (one.kind, one.value) for index, one in found.items()} == {0: ("n-gram", 1.0)}


def test_shared_boilerplate_is_no_contamination() -> None:
    boiler = "Read the input from stdin and print the answer to stdout. "
    mine = boiler + " ".join(f"alpha{number}" for number in range(60))
    theirs = boiler + " ".join(f"beta{number}" for number in range(60))
    assert contaminated([mine], {"bench": [theirs]}) == {}

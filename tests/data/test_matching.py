"""A problem is found by id and text, and never one where the two disagree."""

import pytest

from codescaler_plugin.data.matching import ProblemIndex
from codescaler_plugin.errors import DataError
from codescaler_plugin.records import Problem


def test_a_bare_number_that_two_data_sets_use_is_told_by_the_text() -> None:
    numbered = [Problem("11", "Eleven.", ()), Problem("MBPP/11", "Of MBPP.", ())]
    index = ProblemIndex(numbered)
    assert index.find("11", "Of MBPP.") is numbered[1]
    with pytest.raises(DataError, match="expected one problem"):
        index.find("MBPP/11", "Eleven.")
    assert index.find("11", "A prompt around it.") is numbered[0]
    with pytest.raises(DataError, match="may be any of 2 problems"):
        index.find("Mbpp/11", "A prompt around it.")

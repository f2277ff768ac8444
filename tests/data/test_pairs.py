"""Files of pairs: what is written is read again, in the columns of each trainer."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from codescaler_plugin.data.pairs import EXPORTS, export_pairs, read_pairs, write_pairs
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.preference.mining import refine_pairs
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.scoring.rendering import Renderer

PAIR = PreferencePair("Add.", "x = 1\n", "x = 2\n", "rollout", "p/1", 0.5, 7, "train", "run")


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "parquet"])
@pytest.mark.parametrize("format_", EXPORTS)
def test_what_is_written_is_read_again(tmp_path: Path, format_: str, suffix: str) -> None:
    file = tmp_path / f"pairs.{suffix}"
    assert write_pairs([PAIR, PAIR], file, format_) == [file]
    [pair, _] = read_pairs(file)
    assert (pair.problem, pair.chosen, pair.rejected) == (PAIR.problem, PAIR.chosen, PAIR.rejected)
    if format_ == "pairs":
        assert pair == PAIR
    elif format_ != "codescaler":
        assert pair.margin == 0.5


def test_held_out_pairs_never_slip_into_a_trainers_file(tmp_path: Path) -> None:
    held_out = PreferencePair("B", "x", "y", "rollout", split="held_out")
    files = write_pairs([PAIR, held_out], tmp_path / "a.jsonl", "trl")
    assert [file.name for file in files] == ["a.jsonl", "a.held_out.jsonl"]
    assert [len(file.read_text().splitlines()) for file in files] == [1, 1]
    assert "Add." in files[0].read_text()


def test_a_margin_that_is_not_known_of_every_pair_is_no_column() -> None:
    unknown = PreferencePair("B", "x", "y", "rollout")
    assert "margin" not in next(export_pairs([PAIR, unknown], "trl"))
    assert next(export_pairs([PAIR], "openrlhf"))["margin"] == 0.5


def test_codescalerpair_51k_columns(tmp_path: Path) -> None:
    file = tmp_path / "part.jsonl"
    file.write_text(json.dumps({"question_content": "Add.", "code_pos": "a", "code_neg": "b", "other": 1}) + "\n")
    assert list(read_pairs(file)) == [PreferencePair("Add.", "a", "b", "rollout")]


def test_a_conversation_without_a_prompt_column(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Add."}]
    row = {side: [*turns, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    [pair] = read_pairs(tmp_path / "a.jsonl")
    assert (pair.problem, pair.chosen, pair.rejected) == ("Add.", "chosen", "rejected")


def test_a_row_that_is_no_pair_is_named_or_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"problem": "p"}\n{"problem": "p", "chosen": "", "rejected": "x"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: expected the columns"):
        list(read_pairs(tmp_path / "a.jsonl"))
    messages: list[str] = []
    assert list(read_pairs(tmp_path / "a.jsonl", on_bad=messages.append)) == []
    assert "chosen side is empty" in messages[1]


@pytest.mark.parametrize(("wrong", "words"), [({"margin": "high"}, "margin is 'high'"), ({"step": "two"}, "step is")])
def test_a_margin_or_step_of_another_type_is_named(tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"problem": "p", "chosen": "x", "rejected": "y"} | wrong) + "\n")
    with pytest.raises(DataError, match=rf"a\.jsonl, line 1: {words}"):
        list(read_pairs(tmp_path / "a.jsonl"))


def test_wrong_suffix_format_and_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected \.jsonl"):
        write_pairs([PAIR], tmp_path / "a.csv")
    with pytest.raises(ConfigError, match="expected one of pairs"):
        write_pairs([PAIR], tmp_path / "a.jsonl", "csv")
    with pytest.raises(ConfigError, match="cannot write"):
        write_pairs([PAIR], tmp_path / "no" / "a.jsonl")


def test_exported_messages_become_the_tokens_that_scoring_renders() -> None:
    pytest.importorskip("torch")
    from codescaler_plugin.testing import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    [row] = export_pairs([PAIR], "trl")
    for side in ("chosen", "rejected"):
        ids = tokenizer.apply_chat_template(row["prompt"] + row[side], return_dict=False)
        assert [ids] == Renderer(tokenizer).encode([(PAIR.problem, getattr(PAIR, side))])


@pytest.mark.parametrize("margin", [math.nan, math.inf, -math.inf, 0.0, -0.5, 1.5, 10**400, "nan"])
def test_a_margin_that_is_no_gap_is_named(tmp_path: Path, margin: Any) -> None:
    """One NaN would make every parameter NaN in a step, while the loss log says 0.0."""
    row = {"problem": "P", "chosen": "x = 1", "rejected": "x = 2", "margin": margin}
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(row | {"margin": 0.5}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"pairs\.jsonl, line 2: margin is"):
        list(read_pairs(path))
    if isinstance(margin, float):
        with pytest.raises(DataError, match="pair 1: margin is"):
            refine_pairs([PreferencePair("P", "a", "b", "k"), PreferencePair("P", "a", "c", "k", margin=margin)])

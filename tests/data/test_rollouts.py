"""Every host's files, as the hosts write them."""

import gzip
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from codescaler_plugin.data.rollouts import fault_of, problem_id_of, read_rollouts, rows_of, same_id_key
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.records import Fault, Rollout

CHATML = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def lines(path: Path, *rows: Any) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def test_trl_completions_parquet_as_its_trainer_writes_it(tmp_path: Path, tiny_policy_dir: Path) -> None:
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [float(len(text)) for text in map(str, completions)]

    for kind, prompts in {
        "standard": ["Write one.", "Write two."],
        "conversational": [
            [{"role": "system", "content": "Be good."}, {"role": "user", "content": f"Write {number}."}]
            for number in ("one", "two")
        ],
    }.items():
        trainer = trl.GRPOTrainer(
            str(tiny_policy_dir),
            reward_funcs=[reward],
            args=trl.GRPOConfig(
                output_dir=str(tmp_path / kind),
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                report_to="none",
                max_completion_length=8,
                disable_tqdm=True,
                save_strategy="no",
                logging_steps=1,
                max_steps=2,
                per_device_train_batch_size=4,
                num_generations=4,
                log_completions=True,
            ),
            train_dataset=Dataset.from_dict({"prompt": prompts}),
        )
        trainer.train()
        rollouts = list(read_rollouts(tmp_path / kind / "completions"))
        assert len(rollouts) == 8
        assert [rollout.step for rollout in rollouts] == [1] * 4 + [2] * 4
        assert {rollout.problem for rollout in rollouts} <= {"Write one.", "Write two."}
        assert {rollout.source for rollout in rollouts} == {kind}
        assert all(isinstance(rollout.completion, str) for rollout in rollouts)


def test_openrlhf_batch_inference(tmp_path: Path) -> None:
    file = lines(tmp_path / "out.jsonl", {"input": CHATML.format("Add."), "output": "Done.", "reward": 1.0})
    assert list(read_rollouts(file)) == [Rollout("Add.", "Done.", source="out.jsonl")]


def test_openrlhf_reward_requests(tmp_path: Path) -> None:
    prompt = CHATML.format("Add.")
    body = {"query": [prompt + "Done.<|im_end|>"], "prompts": [prompt], "labels": [""]}
    [rollout] = read_rollouts(lines(tmp_path / "requests.jsonl", body))
    assert (rollout.problem, rollout.completion) == ("Add.", "Done.")


def test_verl_rollout_folder_in_step_order(tmp_path: Path) -> None:
    folder = tmp_path / "rollouts"
    folder.mkdir()
    for step in (10, 2, 1):
        text = f"system\nBe good.\nuser\nProblem {step}.\nassistant\n"
        lines(folder / f"{step}.jsonl", {"input": text, "output": "x", "gts": "1", "score": 0.5, "step": step})
    rollouts = list(read_rollouts(folder))
    assert [(one.problem, one.step) for one in rollouts] == [("Problem 1.", 1), ("Problem 2.", 2), ("Problem 10.", 10)]


def test_the_recipes_problem_field_is_never_believed(tmp_path: Path) -> None:
    rows = [
        {
            "data_source": "d",
            "problem": "The last row's problem.",
            "prompt": CHATML.format(problem),
            "response": f"Answer to {problem}<|im_end|>",
            "extracted_code": "",
            "verified_score": 0.0,
        }
        for problem in ("First.", "Second.")
    ]
    (tmp_path / "step-7.json").write_text(json.dumps(rows))
    (tmp_path / "step-val-7.json").write_text(json.dumps(rows))
    rollouts = list(read_rollouts(tmp_path))
    assert [one.problem for one in rollouts] == ["First.", "Second."]
    assert [one.step for one in rollouts] == [7, 7]
    assert len(list(read_rollouts(tmp_path / "step-val-7.json"))) == 2


def test_plain_lines_plain_or_zipped(tmp_path: Path) -> None:
    row = {"problem": "Add.", "completion": "Done.", "task_id": 3, "step": 5.0, "source": "mine"}
    expected = [Rollout("Add.", "Done.", "3", 5, "mine")]
    assert list(read_rollouts(lines(tmp_path / "a.jsonl", row))) == expected
    assert list(read_rollouts(lines(tmp_path / "a.jsonl.gz", row))) == expected


def test_messages_are_read_as_scoring_reads_them(tmp_path: Path) -> None:
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "Add."}]
    [rollout] = read_rollouts(
        lines(tmp_path / "a.jsonl", {"prompt": prompt, "completion": [{"role": "assistant", "content": "Done."}]})
    )
    assert (rollout.problem, rollout.completion) == ("Add.", "Done.")


def test_a_dataset_on_disk(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    from datasets import Dataset, DatasetDict

    dataset = Dataset.from_dict({"prompt": ["Add."], "completion": ["Done."]})
    dataset.save_to_disk(tmp_path / "one")
    assert [one.problem for one in read_rollouts(tmp_path / "one")] == ["Add."]
    DatasetDict(train=dataset, test=dataset).save_to_disk(tmp_path / "two")
    assert len(list(read_rollouts(f"{tmp_path / 'two'}:test"))) == 1
    with pytest.raises(ConfigError, match="splits train, test"):
        list(read_rollouts(tmp_path / "two"))


def test_a_bad_row_is_named_raised_or_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(
        '{"problem": "p", "completion": "c"}\n{"problem"\n[1]\n{"problem": "p"}\n'
        '{"problem": 3, "completion": "c"}\n{"problem": "p", "completion": "c", "step": "x"}\n' + "[" * 5000 + "\n"
    )
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: not JSON"):
        list(read_rollouts(file))
    messages: list[str] = []
    assert len(list(read_rollouts(file, on_bad=messages.append))) == 1
    assert [message.split(":")[0] for message in messages] == [f"a.jsonl, line {number}" for number in range(2, 8)]
    assert "expected a column 'completion'" in messages[2]


def test_a_step_that_is_no_number_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(
        "".join(f'{{"problem": "p", "completion": "c", "step": {step}}}\n' for step in ("NaN", "1e999", "2.5", "3.0"))
    )
    messages: list[str] = []
    assert [rollout.step for rollout in read_rollouts(file, on_bad=messages.append)] == [3]
    assert all("expected a whole number" in message for message in messages)
    assert len(messages) == 3


def test_a_file_that_is_cut_off_or_no_gzip_is_named(tmp_path: Path) -> None:
    whole = lines(tmp_path / "a.jsonl.gz", *({"problem": "p", "completion": str(number)} for number in range(9)))
    whole.write_bytes(whole.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"a\.jsonl\.gz.*: what follows cannot be read"):
        list(read_rollouts(whole))
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"b\.jsonl\.gz: what follows cannot be read.*[Nn]ot a gzipped file"):
        list(read_rollouts(tmp_path / "b.jsonl.gz"))


def test_half_a_surrogate_pair_in_a_completion_can_be_written_again(tmp_path: Path) -> None:
    [rollout] = read_rollouts(lines(tmp_path / "a.jsonl", {"problem": "p", "completion": "\ud83d"}))
    rollout.completion.encode()


@pytest.mark.parametrize("path", ["nothing-here", "no/such/thing", "owner/no-such-dataset"])
def test_a_path_that_is_not_there(path: str) -> None:
    if path.startswith("owner"):
        pytest.importorskip("datasets")
    with pytest.raises(ConfigError, match=path):
        list(read_rollouts(path))


def test_unknown_formats_and_empty_folders_and_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected one of auto"):
        list(read_rollouts(tmp_path, "csv"))
    with pytest.raises(ConfigError, match="holds no file"):
        list(read_rollouts(tmp_path))
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(DataError, match=r"a\.parquet is no parquet"):
        list(read_rollouts(tmp_path))
    (tmp_path / "b.json").write_text("[1, 2")
    with pytest.raises(DataError, match=r"b\.json is no JSON array"):
        list(read_rollouts(tmp_path / "b.json"))


def test_an_array_row_that_is_no_object_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(DataError, match="row 0: expected an object"):
        list(rows_of(tmp_path / "a.json"))


@pytest.mark.parametrize("name", ["extra_info", "metadata"])
def test_a_problems_id_may_be_nested(tmp_path: Path, name: str) -> None:
    row = {"problem": "p", "completion": "c", "id": "7", name: {"task_id": 3, "id": 9}}
    assert [one.problem_id for one in read_rollouts(lines(tmp_path / "a.jsonl", row))] == ["3"]
    gap = {**row, "problem_id": float("nan")}
    assert [one.problem_id for one in read_rollouts(lines(tmp_path / "a.jsonl", gap))] == ["3"]
    own = {**row, "problem_id": "mine"}
    assert [one.problem_id for one in read_rollouts(lines(tmp_path / "a.jsonl", own))] == ["mine"]


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("11", "MBPP/11", True),
        ("Mbpp/11", "MBPP/11", True),
        ("11.0", "11", True),
        (" 11 ", "mbppplus_11", True),
        ("humaneval/3", "HumanEval/3", True),
        ("HumanEval/11", "MBPP/11", False),
        ("HumanEval/11", "11", False),
        ("MBPP/1", "MBPP/11", False),
        ("1.5", "1", False),
        ("", "0", False),
    ],
)
def test_ids_that_name_the_same_problem(first: str, second: str, same: bool) -> None:
    assert (same_id_key(first) == same_id_key(second)) is same


_READ = """
import sys
from codescaler_plugin.data.rollouts import read_rollouts
count = sum(1 for _ in read_rollouts(sys.argv[1]))
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]  # ru_maxrss is inherited
print(count, peak)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_memory_does_not_grow_with_the_number_of_rollouts(tmp_path: Path, suffix: str) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    def peak(count: int) -> int:
        file = tmp_path / f"{count}.{suffix}"
        rows = [{"prompt": f"Problem {number}", "completion": "x" * 2000, "step": number} for number in range(count)]
        if suffix == "jsonl":
            lines(file, *rows)
        else:
            parquet.write_table(arrow.Table.from_pylist(rows), file, row_group_size=1000)
        done = subprocess.run([sys.executable, "-c", _READ, str(file)], capture_output=True, text=True, check=True)
        read, kilobytes = map(int, done.stdout.split())
        assert read == count
        return kilobytes

    # 30,000 more rollouts are 60 MB of text
    assert peak(32_000) - peak(2_000) < 25_000


@pytest.mark.parametrize("gap", ["", None, math.nan])
def test_a_gap_in_one_id_column_hides_no_other(gap: Any) -> None:
    assert problem_id_of({"problem_id": gap, "task_id": 11}) == "11"
    assert problem_id_of({"task_id": gap, "metadata": {"problem_id": gap, "question_id": "q"}}) == "q"


@pytest.mark.parametrize("gap", ["", None, math.nan])
def test_a_gap_is_no_fault(gap: Any) -> None:
    """Pandas writes NaN for null, CSV an empty text."""
    assert fault_of({"fault": gap}) is None
    assert fault_of({"fault": "killed"}) is Fault.KILLED
    with pytest.raises(DataError, match="expected null or one of timeout"):
        fault_of({"fault": "tired"})

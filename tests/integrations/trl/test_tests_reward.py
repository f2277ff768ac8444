"""The tests-reward by itself, called as TRL calls it; `tests/contract/test_trl_tests_reward.py` has the trainer."""

import gc
import logging
import multiprocessing
import pickle
from collections.abc import Sequence
from typing import Any

import psutil
import pytest

from codescaler_plugin import CodeScalerReward, CodeScalerTestsReward, ConfigError, DataError, SandboxError, Status
from codescaler_plugin.execution.executor import Job
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.integrations.trl import compat, tests_reward
from codescaler_plugin.records import CallTest, Fault, Problem, ScriptTest, StdioTest, Verdict
from codescaler_plugin.testing import FakeExecutor, FakeScorer
from tests.contract import spawned
from tests.samples import fenced

ADD = Problem("add", "Write solve(n) that adds one.", (CallTest((1,), 2), CallTest((5,), 6)), "solve")
DOUBLE = Problem("double", "Write solve(n) that doubles n.", (CallTest((3,), 6),), "solve")
RIGHT = {"add": "def solve(n):\n    return n + 1", "double": "def solve(n):\n    return 2 * n"}
WRONG = "def solve(n):\n    return n"


class Grader(FakeExecutor):
    """Passes what is in `right`; the rest fails, or has the fault or error given."""

    def __init__(self, *right: str, fault: Fault | None = None, error: SandboxError | None = None) -> None:
        wrong = Verdict(False, "[/b] no", fault=fault)
        super().__init__(lambda code, _: Verdict(True) if code in right else wrong)
        self.error = error

    def run(self, jobs: Sequence[Job], *, progress: Any = None) -> list[Verdict]:
        verdicts = super().run([(code.strip(), problem) for code, problem in jobs], progress=progress)
        if self.error is not None:
            raise self.error
        return verdicts


@pytest.fixture(scope="module")
def reward():
    made = CodeScalerTestsReward([ADD, DOUBLE], workers=1)
    yield made
    made.close()


def graded(**settings: Any) -> tuple[CodeScalerTestsReward, Grader]:
    grader = Grader(*RIGHT.values())
    return CodeScalerTestsReward([ADD, DOUBLE], executor=grader, **settings), grader


def test_the_tests_decide_and_invalid_code_is_worth_0(reward):
    answers = [fenced(RIGHT["add"]), fenced(WRONG), "I cannot.", fenced("def solve(n):\n    return n +")]
    assert reward(prompts=[ADD.text] * 4, completions=answers) == [1.0, 0.0, 0.0, 0.0]
    assert reward(prompts=[DOUBLE.text] * 2, completions=[fenced(RIGHT["double"]), fenced(WRONG)]) == [1.0, 0.0]


def test_each_problem_has_one_of_the_two_rewards():
    tests = CodeScalerTestsReward([Problem("problem/0", "Add one.", (CallTest((1,), 2),), "solve")])
    scorer = FakeScorer()
    inner = CodeScalerReward(scorer=scorer, problem_column="problem")
    judge = tests.elsewhere(inner)
    answers = [fenced("def solve(n):\n    return n + 1"), fenced("def solve(n):\n    return n"), "no code"]
    batch: dict[str, Any] = {
        "prompts": ["p"] * 6,
        "completions": answers * 2,
        "problem_id": ["problem/0"] * 3 + ["synthetic/0"] * 3,
        "problem": ["Add one."] * 3 + ["Another."] * 3,
        "log_extra": None,
    }
    assert tests(**batch) == [1.0, 0.0, 0.0, None, None, None]
    judged = judge(**batch)
    assert judged[:3] == [None] * 3
    assert judged[3] > judged[4] > judged[5] == 0
    assert scorer.calls == [
        [("Another.", "def solve(n):\n    return n + 1\n"), ("Another.", "def solve(n):\n    return n\n")]
    ]
    tests.close()


def test_elsewhere_hands_on_what_belongs_to_its_rows_and_logs_a_value_for_each_completion():
    tests, _ = graded()
    tables: dict[str, list[Any]] = {}
    metrics: dict[str, float] = {}
    seen: dict[str, Any] = {}

    def inner(prompts, completions, *, log_extra, log_metric, **columns):
        seen.update(prompts=prompts, completions=completions, **columns)
        log_metric("calls", 1.0)
        log_extra("inner/words", [len(text.split()) for text in completions])
        return [0.5] * len(prompts)

    both = {"prompts": [ADD.text, "Another.", "A third."], "completions": ["a", "b c", "d e f"]}
    given = tests.elsewhere(inner)(
        **both, hint=["x", "y", "z"], trainer_state="state", completion_ids=[[1], [2], [3]],
        log_extra=tables.__setitem__, log_metric=metrics.__setitem__,
    )  # fmt: skip
    assert given == [None, 0.5, 0.5]
    assert seen == {
        "prompts": ["Another.", "A third."],
        "completions": ["b c", "d e f"],
        "hint": ["y", "z"],
        "trainer_state": "state",
        "completion_ids": [[2], [3]],
    }
    assert tables == {"inner/words": [None, 2, 3]}
    assert metrics == {"calls": 1.0}
    assert tests.elsewhere(inner).__name__ == "inner"


def test_elsewhere_asks_its_reward_even_for_no_rows_so_that_all_processes_log_alike():
    tests, _ = graded()
    scorer = FakeScorer()
    metrics: dict[str, float] = {}
    tables: dict[str, list[Any]] = {}
    judge = tests.elsewhere(CodeScalerReward(scorer=scorer))
    call: dict[str, Any] = {"prompts": [ADD.text], "completions": [fenced(WRONG)], "log_extra": tables.__setitem__}
    assert judge(**call, log_metric=metrics.__setitem__) == [None]
    assert scorer.calls == []
    assert {f"codescaler_reward/status/{status}" for status in Status} <= metrics.keys()
    assert tables == {f"codescaler_reward/{column}": [None] for column in ("status", "score", "explanation")}


@pytest.mark.parametrize(
    ("prompt", "columns"),
    [
        (ADD.text, {}),
        (f"  {ADD.text.replace(' ', '  ')}\n", {}),
        ([{"role": "system", "content": "You write Python."}, {"role": "user", "content": ADD.text}], {}),
        ([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ADD.text}]}], {}),
        (f"<|im_start|>user\n{ADD.text}<|im_end|>\n<|im_start|>assistant\n", {}),
        ([{"role": "user", "content": f"{ADD.text}\n\nUse one block."}], {"problem_id": ["add"]}),
        ("In your words.", {"task_id": ["add"]}),
        ("In your words.", {"extra_info": [{"question_id": "add"}]}),
        ("In your words.", {"task_id": ["unknown"], "problem_id": ["add"]}),
    ],
    ids=["text", "spaces", "messages", "parts", "template", "instructed", "task_id", "extra_info", "problem_id-first"],
)
def test_a_problem_is_found_by_its_id_or_its_text(prompt, columns):
    reward, grader = graded()
    assert reward(prompts=[prompt], completions=[fenced(RIGHT["add"])], **columns) == [1.0]
    assert [problem for _, problem in grader.calls[0]] == [ADD]


@pytest.mark.parametrize(
    "completion",
    [
        fenced(RIGHT["add"]),
        [{"role": "assistant", "content": fenced(RIGHT["add"])}],
        [{"role": "assistant", "content": [{"type": "text", "text": fenced(RIGHT["add"])}]}],
        f"<think>\n{fenced(WRONG)}</think>\n{fenced(RIGHT['add'])}",
    ],
    ids=["text", "messages", "parts", "reasoning"],
)
def test_completions_are_read_as_codescaler_reward_reads_them(completion):
    reward, _ = graded()
    assert reward(prompts=[ADD.text], completions=[completion]) == [1.0]


def test_what_the_prompt_has_opened_belongs_to_the_completion():
    reward, _ = graded()
    prompt = f"<|im_start|>user\n{ADD.text}<|im_end|>\n<|im_start|>assistant\n<think>\n"
    drafts = f"{fenced(WRONG)}Let me think again."  # cut inside the reasoning
    assert reward(prompts=[prompt] * 2, completions=[drafts, f"Easy.</think>\n{fenced(RIGHT['add'])}"]) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"extraction": "last"}, fenced(WRONG) + fenced(RIGHT["add"])),
        ({"extraction": "bare"}, RIGHT["add"]),
        ({"reasoning_marks": "<plan> </plan>"}, f"<plan>\n{fenced(WRONG)}</plan>\n{fenced(RIGHT['add'])}"),
        ({"fence_prefilled": True}, f"{RIGHT['add']}\n```\n"),
    ],
    ids=["last", "bare", "marks", "fence"],
)
def test_settings_say_what_is_the_program(settings, answer, monkeypatch):
    assert graded()[0](prompts=[ADD.text], completions=[answer]) == [0.0]
    assert graded(**settings)[0](prompts=[ADD.text], completions=[answer]) == [1.0]
    for name, value in settings.items():
        monkeypatch.setenv(f"CODESCALER_{name.upper()}", "1" if value is True else value)
    assert graded()[0](prompts=[ADD.text], completions=[answer]) == [1.0]


def test_the_problem_may_stand_in_a_column_or_in_a_wrapper():
    reward, _ = graded(problem_column="statement")
    right = [fenced(RIGHT["add"])]
    assert reward(prompts=["Please."], completions=right, statement=[ADD.text]) == [1.0]
    with pytest.raises(DataError, match=r"'statement' is not in the dataset: its columns are task"):
        reward(prompts=["Please."], completions=right, task=[1])
    reward, _ = graded(problem_wrapper=r"Question: (?P<problem>.*) Answer it\.")
    assert reward(prompts=[f"Question: {ADD.text} Answer it.", "None."], completions=right * 2) == [1.0, None]


def test_each_distinct_program_is_run_once_per_call():
    reward, grader = graded()
    answers = [fenced(RIGHT["add"]), "Hm. " + fenced(RIGHT["add"]), fenced(WRONG), fenced(RIGHT["add"])]
    assert reward(prompts=[ADD.text] * 3 + [DOUBLE.text], completions=answers) == [1.0, 1.0, 0.0, 1.0]
    assert grader.calls == [[(RIGHT["add"], ADD), (WRONG, ADD), (RIGHT["add"], DOUBLE)]]


@pytest.mark.parametrize("fault", Fault)
def test_a_fault_is_no_judgement(fault, caplog):
    grader = Grader(RIGHT["add"], fault=fault)
    reward = CodeScalerTestsReward([ADD], executor=grader, max_unscored=1.0)
    tables: dict[str, list[Any]] = {}
    metrics: dict[str, float] = {}
    answers = [fenced(RIGHT["add"]), fenced(WRONG), "No."]
    for _ in range(4):
        given = reward(
            prompts=[ADD.text] * 3, completions=answers, log_extra=tables.__setitem__, log_metric=metrics.__setitem__
        )
        assert given == [1.0, None, 0.0]
    assert tables == {"tests/status": ["ok", "ok", "no_block"], "tests/verdict": ["passed", str(fault), None]}
    assert (metrics["tests/unjudged"], metrics["tests/pass_rate"]) == (1.0, 1.0)
    [said] = [record.message for record in caplog.records if "no verdict" in record.message]
    assert f"{fault} 1" in said


def test_tests_that_cannot_run_give_none_in_the_real_sandbox():
    broken = Problem("broken", "Write f.", (ScriptTest("import no_such_package\nassert f(1) == 1"),), "f")
    silent = Problem("silent", "Print one.", (StdioTest("", "1"),))
    reward = CodeScalerTestsReward([broken, silent], workers=1)
    answers = [fenced("def f(x):\n    return x"), fenced("print(1)"), fenced("import numpy\nprint(numpy.int64(1))")]
    assert reward(prompts=["Write f.", "Print one.", "Print one."], completions=answers) == [None, 1.0, None]
    reward.close()


def test_a_prompt_that_cannot_be_read_gets_none_and_is_named_once(caplog):
    reward, _ = graded()
    prompts: list[Any] = [ADD.text, [{"role": "user", "content": [{"type": "image"}]}]]
    for _ in range(2):
        assert reward(prompts=prompts, completions=[fenced(RIGHT["add"])] * 2) == [1.0, None]
    [said] = [record.message for record in caplog.records]
    assert "problem 1 has no user message with text" in said


def test_an_id_and_a_text_of_different_problems_are_an_error():
    reward, _ = graded()
    with pytest.raises(DataError, match=r"'double'.*the text is that of problem 'add'"):
        reward(prompts=[ADD.text], completions=["No."], problem_id=["double"])


def test_lengths_that_differ_are_an_error():
    reward, _ = graded()
    with pytest.raises(DataError, match="1 prompts for 2 completions"):
        reward(prompts=[ADD.text], completions=["No.", "No."])


# Metrics and the table


def test_metrics_and_table_of_a_mixed_call():
    reward, _ = graded(name="unit")
    metrics: dict[str, float] = {}
    tables: dict[str, list[Any]] = {}
    answers = [fenced(RIGHT["add"]), fenced(WRONG), "No.", fenced(WRONG)]
    given = reward(
        prompts=[ADD.text] * 3 + ["Another."],
        completions=answers,
        log_metric=metrics.__setitem__,
        log_extra=tables.__setitem__,
        trainer_state=None,
    )
    assert given == [1.0, 0.0, 0.0, None]
    assert tables == {
        "unit/status": ["ok", "ok", "no_block", None],
        "unit/verdict": ["passed", "failed", None, None],
    }
    assert metrics.pop("unit/seconds") >= 0
    shares: dict[str, Any] = {f"unit/status/{status}": 0.0 for status in Status}
    shares |= {"unit/status/ok": pytest.approx(2 / 3), "unit/status/no_block": pytest.approx(1 / 3)}
    assert metrics == {**shares, "unit/untested": 0.25, "unit/unjudged": 0.0, "unit/pass_rate": 0.5}


def test_an_empty_call_gives_no_rewards_and_the_same_metrics_without_a_rate():
    reward, grader = graded()
    metrics: dict[str, float] = {}
    assert reward(prompts=[], completions=[], log_metric=metrics.__setitem__, log_extra=lambda *_: None) == []
    assert grader.calls == []
    assert metrics.keys() == {f"tests/status/{status}" for status in Status} | {
        "tests/untested", "tests/unjudged", "tests/seconds",
    }  # fmt: skip


def test_a_run_in_which_nothing_has_tests_is_told_so_once(caplog):
    reward, _ = graded()
    for _ in range(19):
        assert reward(prompts=["Another."], completions=["No."]) == [None]
    assert caplog.records == []
    for _ in range(21):
        reward(prompts=["Another."], completions=["No."])
    [said] = [record.message for record in caplog.records]
    assert "no completion of 20 calls" in said
    assert "problem_id" in said


def test_a_run_that_has_had_tests_is_not(caplog):
    reward, _ = graded()
    reward(prompts=[ADD.text], completions=["No."])
    for _ in range(40):
        reward(prompts=["Another."], completions=["No."])
    assert caplog.records == []


# A training does not go on without rewards


def test_a_sandbox_that_fails_on_the_first_call_ends_the_training():
    grader = Grader(error=SandboxError("no space"))
    with pytest.raises(SandboxError, match="no space"):
        CodeScalerTestsReward([ADD], executor=grader)(prompts=[ADD.text], completions=[fenced(WRONG)])


def test_a_sandbox_that_cannot_be_had_ends_the_training_before_there_is_a_program(monkeypatch):
    def refuse(**_: Any) -> Sandbox:
        raise SandboxError("isolation is required")

    monkeypatch.setattr(tests_reward, "Sandbox", refuse)
    reward = CodeScalerTestsReward([ADD], require_isolation=True)
    with pytest.raises(SandboxError, match="isolation is required"):
        reward(prompts=["Another."], completions=["No."])


def test_a_sandbox_that_fails_later_gives_none_and_ends_the_training_at_the_third_call(caplog):
    reward, grader = graded()
    call: dict[str, Any] = {"prompts": [ADD.text] * 2, "completions": [fenced(RIGHT["add"]), "No."]}
    assert reward(**call) == [1.0, 0.0]
    grader.error = SandboxError("no space left")
    assert reward(**call) == [None, 0.0]
    assert reward(**call) == [None, 0.0]
    with pytest.raises(SandboxError, match=r"1 of 1 programs got no verdict.*max_unscored=0.5 for 3 calls.*no space"):
        reward(**call)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3


def test_faults_count_only_in_a_row_and_only_above_the_limit():
    grader = Grader(RIGHT["add"], fault=Fault.MISSING_PACKAGE)
    reward = CodeScalerTestsReward([ADD], executor=grader)
    poor: dict[str, Any] = {"prompts": [ADD.text] * 2, "completions": [fenced(WRONG), fenced(WRONG + "\nx = 1")]}
    good: dict[str, Any] = {"prompts": [ADD.text] * 2, "completions": [fenced(WRONG), fenced(RIGHT["add"])]}
    for _ in range(3):
        assert reward(**poor) == [None, None]
        assert reward(**poor) == [None, None]
        assert reward(prompts=[ADD.text], completions=["No."]) == [0.0]  # says nothing of the sandbox
        assert reward(**good) == [None, 1.0]
    reward(**poor)
    reward(**poor)
    with pytest.raises(SandboxError, match=r"2 of 2 .*missing_package 2, such as '\[/b\] no'.*packages"):
        reward(**poor)


# Settings


@pytest.mark.parametrize(
    ("problems", "settings", "error", "said"),
    [
        ([ADD], {"extracton": "last"}, ConfigError, "did you mean extraction"),
        (
            [ADD],
            {"model": "builtin"},
            ConfigError,
            "model would have no effect on tests: expected language, extraction",
        ),
        ([ADD], {"shaping": "raw"}, ConfigError, "shaping would have no effect"),
        ([ADD], {"language": "any"}, ConfigError, "language is 'any', and tests run in Python"),
        ([], {}, DataError, "no problem has tests"),
        ([Problem("none", "Text.", ())], {}, DataError, "no problem has tests"),
        ([ADD, ADD], {}, DataError, "2 problems"),
        ("problems.jsonl", {}, ConfigError, r"give read_problems\('problems.jsonl'\)"),
    ],
)
def test_what_would_not_work_is_said_when_the_reward_is_made(problems, settings, error, said):
    with pytest.raises(error, match=said):
        CodeScalerTestsReward(problems, **settings)


def test_settings_of_the_model_beside_it_are_for_the_other_reward(monkeypatch):
    monkeypatch.setenv("CODESCALER_MODEL", "builtin")
    monkeypatch.setenv("CODESCALER_MAX_LENGTH", "512")
    reward, _ = graded()
    assert reward(prompts=[ADD.text], completions=[fenced(RIGHT["add"])]) == [1.0]


def test_problems_of_several_files_may_have_the_same_ids():
    other = Problem("add", "Write solve(n) that adds two.", (CallTest((1,), 3),), "solve")
    grader = Grader("def solve(n):\n    return n + 2")
    reward = CodeScalerTestsReward([ADD, other], executor=grader)
    assert reward(prompts=[other.text], completions=[fenced("def solve(n):\n    return n + 2")]) == [1.0]
    assert [problem for _, problem in grader.calls[0]] == [other]


# Processes


def sandboxes() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_the_sandbox_starts_at_the_first_call_stays_and_ends():
    before = sandboxes()
    reward = CodeScalerTestsReward([ADD], workers=1)
    assert sandboxes() == before
    call: dict[str, Any] = {"prompts": [ADD.text], "completions": [fenced(RIGHT["add"])]}
    assert reward(**call) == [1.0]
    first = sandboxes() - before
    assert first
    assert reward(**call) == [1.0]
    assert first <= sandboxes()
    reward.close()
    reward.close()
    assert not sandboxes() & first
    assert reward(**call) == [1.0]
    second = sandboxes() - before
    assert second
    del reward
    gc.collect()
    assert not sandboxes() & second


def test_a_used_reward_pickles_as_its_settings_and_works_in_a_spawned_process():
    reward = CodeScalerTestsReward([ADD, Problem("p", "p", (CallTest((1,), 2),), "solve")], workers=1, name="unit")
    assert reward(prompts=["p"], completions=[fenced(RIGHT["add"])]) == [1.0]
    assert len(pickle.dumps(reward)) < 5_000
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=spawned.call, args=(reward, results))
    process.start()
    try:
        given = results.get(timeout=120)
    finally:
        process.join(10)
        process.kill()
    reward.close()
    assert given == [None, 0.0]
    assert pickle.loads(pickle.dumps(reward)).__name__ == "unit"
    assert pickle.loads(pickle.dumps(reward.elsewhere(CodeScalerReward()))).__name__ == "codescaler_reward"


def test_the_cores_are_divided_among_the_processes_of_the_machine(monkeypatch):
    made: list[int] = []

    class Counted(Grader):
        def __init__(self, *, workers: int, **_: Any) -> None:
            super().__init__()
            made.append(workers)

        def close(self) -> None:
            pass

    monkeypatch.setattr(tests_reward, "Sandbox", Counted)
    monkeypatch.setattr(tests_reward, "usable_cores", lambda: 12)
    for processes in ("1", "4", "64"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        CodeScalerTestsReward([ADD])(prompts=["Another."], completions=["No."])
    CodeScalerTestsReward([ADD], workers=5)(prompts=["Another."], completions=["No."])
    assert made == [12, 3, 1, 5]
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert compat.processes_here() == 1

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.doubles import Answer, Double, Serve


# Examples in docstrings are those of the package: scripts and helpers of tests are not imported for theirs.
collect_ignore = [
    str(path)
    for path in Path(__file__).parent.rglob("*.py")
    if not path.name.startswith(("test_", "__init__", "conftest"))
]


def pytest_configure() -> None:
    # Before any test module is imported: the hub client reads its variable once, and so do child processes.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are taken by pytest-xdist
    for name in [name for name in os.environ if name.startswith("CODESCALER_")]:
        del os.environ[name]


@pytest.fixture(scope="session")
def tiny_tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    from codescaler_plugin import testing

    folder = tmp_path_factory.mktemp("tokenizer")
    testing.tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_policy_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    from codescaler_plugin import testing

    return testing.save_tiny_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="session")
def tiny_rm_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    from codescaler_plugin import testing

    return testing.save_tiny_reward_model(tmp_path_factory.mktemp("reward-model"))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> "Iterator[Serve]":
    """Starts doubles of servers, which are asked again without delay, and ends them."""
    from codescaler_plugin import http_client
    from tests.doubles import Double

    monkeypatch.setattr(http_client, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(http_client, "_LONGEST_PAUSE", 0.02)
    doubles: list[Double] = []

    def start(answer: "Answer") -> "Double":
        doubles.append(Double(answer))
        return doubles[-1]

    yield start
    for double in doubles:
        double.close()

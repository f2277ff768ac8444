import os
from pathlib import Path

import pytest


def pytest_configure() -> None:
    # Before any test module is imported: the hub client reads its variable once, and so do child processes.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are taken by pytest-xdist
    for name in [name for name in os.environ if name.startswith("CODESCALER_")]:
        del os.environ[name]


@pytest.fixture(scope="session")
def tiny_tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests import tiny

    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_policy_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests import tiny

    return tiny.save_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="session")
def tiny_rm_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests import tiny

    return tiny.save_reward_model(tmp_path_factory.mktemp("reward-model"))

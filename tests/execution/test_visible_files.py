"""Installed packages are hidden from programs, but for those that are named."""

import os
import site
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from codescaler_plugin import Verdict
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.records import Problem, StdioTest
from tests.execution.programs import calls
from tests.processes import sandbox_or_skip


@pytest.fixture(scope="module", params=["bubblewrap", "landlock", "limits"])
def isolation(request: pytest.FixtureRequest) -> str:
    sandbox_or_skip(request.param).close()
    return str(request.param)


@pytest.fixture(scope="module")
def sandbox(isolation: str) -> Iterator[Sandbox]:
    with Sandbox(isolation=isolation, workers=1, timeout=3.0, memory_mb=512) as pool:
        yield pool


def returned(sandbox: Sandbox, code: str, wanted: object = "") -> Verdict:
    return sandbox.run([(code, calls((3, wanted)))])[0]


def printed(sandbox: Sandbox, code: str, wanted: str) -> Verdict:
    return sandbox.run([(code, Problem("p", "text", (StdioTest("", wanted),)))])[0]


def skip_without(sandbox: Sandbox, *words: str) -> None:
    if said := [sentence for sentence in sandbox.missing if any(word in sentence for word in words)]:
        pytest.skip("; ".join(said))


def folders_of_packages() -> set[str]:
    named = {sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"], *site.getsitepackages()}
    return named | {"/usr/lib/python3/dist-packages", sysconfig.get_path("stdlib") + "/site-packages"}


def test_installed_packages_are_not_there(sandbox: Sandbox) -> None:
    skip_without(sandbox, "files not hidden")
    code = f"""
import os, sys
def solve(n):
    found = []
    for folder in {sorted(folders_of_packages())!r} + sys.path:
        if folder.endswith("-packages"):
            for parent, _, names in os.walk(folder):
                found += [os.path.join(parent, name) for name in names]
    for parent in ("/lib", "/usr", "/opt", {sysconfig.get_config_var("LIBDIR")!r}):
        for folder, names, files in os.walk(parent):
            if folder.endswith(("site-packages", "dist-packages")):
                found += [os.path.join(folder, name) for name in names + files]
    return found[:5]
"""
    assert returned(sandbox, code, []).detail == ""


def test_no_package_can_be_imported_that_is_not_named(sandbox: Sandbox) -> None:
    one = printed(sandbox, "try:\n    import numpy\nexcept ImportError as e:\n    print(e.name)", "numpy")
    assert one.detail == ""


def test_a_named_package_brings_what_it_requires_and_what_it_loads_late(isolation: str) -> None:
    pytest.importorskip("pandas")
    with Sandbox(isolation=isolation, workers=1, timeout=10.0, memory_mb=1024, packages=("pandas",)) as pool:
        skip_without(pool, "standard library hidden")
        code = """
import os
import dateutil.relativedelta, numpy as np, numpy.random, pandas as pd, pandas.tseries.holiday
from importlib import metadata
print(pd.DataFrame({'a': [1, 2]}).a.sum(), np.random.default_rng(0).integers(1), metadata.version('pandas') == pd.__version__)
print(int((np.ones((200, 200)) @ np.ones((200, 200))).sum()))
try:
    import torch
except ImportError:
    print('no torch')
"""
        assert printed(pool, code, "3 0 True\n8000000\nno torch").detail == ""


def test_a_package_below_tmp_loads_its_modules_late(
    isolation: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path("/tmp") / f"codescaler-test-{os.getpid()}" / "site-packages"
    (folder / "lazypackage").mkdir(parents=True)
    (folder / "lazypackage" / "__init__.py").write_text("x = 1\n")
    (folder / "lazypackage" / "late.py").write_text("x = 4\n")
    monkeypatch.syspath_prepend(str(folder))
    try:
        with Sandbox(isolation=isolation, workers=1, packages=("lazypackage",)) as pool:
            code = "def solve(n):\n    from lazypackage import late\n    return late.x\n"
            assert returned(pool, code, 4).detail == ""
            assert printed(pool, "import lazypackage.late\nprint(lazypackage.late.x)", "4").detail == ""
            writes = f"def solve(n):\n    try:\n        open({str(folder / 'lazypackage' / 'late.py')!r}, 'a').close()\n    except OSError:\n        return 4\n"
            skip_without(pool, "files not protected")
            assert returned(pool, writes, 4).detail == ""
    finally:
        subprocess.run(["rm", "-r", str(folder.parent)], check=True)

"""schemathesis, fetched for the session, reads the OpenAPI document and asks every route what it promises to take."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.running import served

RUN = "import sys; from schemathesis.cli import schemathesis; sys.argv[0] = 'schemathesis'; schemathesis()"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.mark.network
@pytest.mark.timeout(400)
def test_every_route_keeps_its_document_and_none_fails_or_hangs(tmp_path: Path) -> None:
    pip = (
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--target",
        str(tmp_path / "packages"),
        "schemathesis>=4",
    )
    fetched = subprocess.run(pip, capture_output=True, text=True, timeout=300, check=False)
    if fetched.returncode:
        pytest.skip(f"the package index cannot be reached: {fetched.stderr.strip().splitlines()[-1]}")
    with served() as running:
        options = ("--checks", CHECKS, "--max-examples", "50", "--seed", "0", "--request-timeout", "30", "--no-color")
        done = subprocess.run(
            [sys.executable, "-c", RUN, "run", f"{running.url}/openapi.json", *options],
            env={**os.environ, "PYTHONPATH": str(tmp_path / "packages")},
            cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert re.search(r"Tested: 6\b", done.stdout), done.stdout[-3000:]

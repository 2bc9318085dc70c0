"""A client that only knows the API's description, let loose on the whole service.

schemathesis makes requests that the description allows and ones that it forbids, and holds every
answer against it: no error of ours, no status, media type, header or field that is not described.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Service

EXAMPLES = 150
"""For each operation, besides what its description suggests by itself."""
COMMAND = (sys.executable, "-c", "import schemathesis.cli; schemathesis.cli.schemathesis()")


@pytest.mark.drill
@pytest.mark.timeout(300)
def test_what_the_description_says_is_so(service: Service, tmp_path: Path) -> None:
    service.start_broker()
    service.start_replica(MODEL_ENGINE="simulated")
    service.start_web()
    service.await_replicas(1)
    done = subprocess.run(
        [
            *COMMAND,
            "run",
            f"http://127.0.0.1:{service.port}/api/openapi.json",
            f"--max-examples={EXAMPLES}",
            "--mode=all",
            "--checks=all",
            "--continue-on-failure",
            "--generation-database=none",
            "--no-color",
        ],
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "tests.system.pictures_for_schemathesis",
            "PYTHONPATH": str(ROOT),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Operations: +(\d+) selected / \1 total", done.stdout)

"""What keeps the parts of `make run` alive."""

import subprocess
import sys
import time

from modelserver.supervisor import Program, Supervisor


def test_a_part_that_is_killed_again_and_again_is_started_again_for_ever() -> None:
    argv = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    program = Program(name="replica 2", argv=argv, env={}, grace_s=1.0)
    supervisor = Supervisor([program], ready=lambda: False, announce=lambda: None)
    [child] = supervisor._children
    child.stillbirths = 2000
    child.born = time.monotonic()
    child.process = subprocess.Popen(argv)
    child.process.wait()
    assert supervisor._tend(child, time.monotonic())
    assert child.process is None
    assert 0 < child.start_at - time.monotonic() < 60

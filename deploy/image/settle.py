"""Compiles a folder of an image and dates its files, so that two builds make the same of it.

    python -m deploy.image.settle FOLDER      dated by SOURCE_DATE_EPOCH, where that is set

Rules:
- Bytecode depends on the source alone: it is made in one process, in a fixed order and with a
  fixed hash seed, and is never compared with its source. The root of an image is read-only where
  it runs: nothing could be compiled then, and no source changes.
- Every file and folder gets one date, in UTC. Without one they keep what they have.
- That date is also in the file SOURCE_DATE_EPOCH. A builder knows files by what is in them alone,
  and would else take a copy from its cache that has the same files with other dates.
- Stages leave what they make in /image, and `COPY --from=stage /image /` keeps the dates of all
  that is in it. The folder that is copied itself would get the time of the build.
"""

import os
import subprocess
import sys
from pathlib import Path

IMAGE = Path("/image")


def settle(folder: Path, epoch_s: int | None) -> None:
    """Compile what is in a folder, and date it.

    What is in /image is compiled as what it will be without that. ``epoch_s`` is in seconds since
    1970, as SOURCE_DATE_EPOCH is (https://reproducible-builds.org/specs/source-date-epoch/). What
    does not compile is left as it is, as pip does: some packages bring templates, or sources for
    other versions of Python.
    """
    subprocess.run(
        [
            *(sys.executable, "-m", "compileall", "-qq", "--invalidation-mode=unchecked-hash"),
            *("-s", IMAGE, "-p", "/", folder),
        ],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        check=False,
    )
    if epoch_s is None:
        return
    (folder / "SOURCE_DATE_EPOCH").write_text(f"{epoch_s}\n")
    for place, folders, files in os.walk(folder):
        for name in ("", *folders, *files):
            os.utime(Path(place, name), (epoch_s, epoch_s), follow_symlinks=False)


if __name__ == "__main__":
    date = os.environ.get("SOURCE_DATE_EPOCH")
    settle(Path(sys.argv[1]), int(date) if date else None)

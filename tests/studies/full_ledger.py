"""A study whose ledger lies on a disk of its own with room for three entries, and once more with room for all.

Runs where disks may be mounted: `unshare --user --map-root-user --mount`. Prints what came of it as JSON.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from running import SHORT, end, entries, start

ROOM = "size=64k"


def main(out: Path) -> None:
    ledger = out / "bin_sweep" / "ledger"
    ledger.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", ROOM, "none", ledger], check=True)
    said = [run(out)]
    before = entries(out)
    subprocess.run(["mount", "-o", "remount,size=8m", ledger], check=True)
    said.append(run(out))
    print(json.dumps({"said": said, "before": before, "after": entries(out)}))


def run(out: Path) -> tuple[int, str, str]:
    study = start(dict(os.environ), *SHORT, "--out", out, stderr=subprocess.PIPE)
    try:
        told, errors = study.communicate(timeout=200)
        return study.returncode, told, errors
    finally:
        end(study)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

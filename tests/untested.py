"""Holds csrc/ to its reasons: `gcovr --json` names branches that no test takes, and the code says why.

A line with such a branch, or one of the three lines above or the one below, has a comment `untested: reason`.
What fails an assert is no branch: build without. Exit status 1 if a reason is missing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def without_reason(report: Path) -> list[str]:
    """`file:line: text` for each line that did not run or has a branch not taken, and has no reason."""
    found = []
    for file in json.loads(report.read_text())["files"]:
        text = Path(file["file"]).read_text().splitlines()
        for line in file["lines"]:
            number = line["line_number"]  # from 1
            if any(branch["count"] == 0 for branch in line["branches"]) or line["count"] == 0:
                around = text[max(0, number - 4) : number + 1]
                if not any("untested: " in each for each in around):
                    found.append(f"{file['file']}:{number}: {text[number - 1].strip()}")
    return found


if __name__ == "__main__":
    missing = without_reason(Path(sys.argv[1]))
    print("\n".join([*missing, f"csrc: {len(missing)} lines with an untaken branch and no reason"]))
    sys.exit(bool(missing))

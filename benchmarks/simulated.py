"""README's table of policies, measured again: python benchmarks/simulated.py [--check] [WORKLOAD...]

With --check the rows that README.md has are compared with what comes out now, all but CPU time. A workload
whose events are others here, because this numpy draws other random numbers, is not compared; that is said.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

README = Path(__file__).parent.parent / "README.md"
WORKLOADS = ("phone", "server", "worst")
CPU_COLUMN = 6


def row(workload: str, page_size: int, policy: dict[str, Any]) -> str:
    """One line of the table."""
    mib = sum(policy["merged"]) * page_size / len(policy["merged"]) / 2**20
    median, late = duration(policy["freeze_to_merged_ms"]), duration(policy["freeze_to_merged_p95_ms"])
    cpu_seconds = policy["cpu_ms"] / 1000
    return (
        f"| `{workload}` | `{policy['name']}` | {mib:.1f} MiB | {policy['area_of_ideal'] * 100:.1f} % | "
        f"{policy['pages_scanned']:,} | {policy['visits_of_ksm'] * 100:.1f} % | {cpu_seconds:.1f} s | "
        f"{policy['breaks']:,} | {median} ({late}) | {policy['freezes_never']} of {policy['freezes']} |"
    )


def duration(ms: int | None) -> str:
    return "-" if ms is None else f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def without_cpu(line: str) -> list[str]:
    cells = [cell.strip() for cell in line.strip("| ").split("|")]
    return cells[:CPU_COLUMN] + cells[CPU_COLUMN + 1 :]


def simulate(workload: str) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "lksm", "simulate", workload, "--json"]
    results: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description="README's table of policies")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--check", action="store_true", help="compare with README.md instead")
    options = parser.parse_args()
    readme = README.read_text()
    ideals = dict(re.findall(r"(\w+)=(\d+)", readme.split("<!-- simulated:")[1].split("-->")[0]))
    faults = 0
    workloads = options.workloads or WORKLOADS
    # Side by side if nobody asks for CPU time.
    with ThreadPoolExecutor(len(workloads) if options.check else 1) as pool:
        found = dict(zip(workloads, pool.map(simulate, workloads), strict=True))
    for workload, results in found.items():
        ideal = str(sum(results["ideal"]))
        print(f"{workload}={ideal}")
        for policy in results["policies"]:
            line = row(workload, results["page_size"], policy)
            print(line, flush=True)
            known = [old for old in readme.splitlines() if old.startswith(line[: line.index("|", 3)])]
            known = [old for old in known if f"| `{policy['name']}` |" in old]
            if options.check and ideal == ideals.get(workload):
                faults += any(without_cpu(old) != without_cpu(line) for old in known)
        if options.check and ideal != ideals.get(workload):
            print(f"{workload}: other events than README's, not compared")
    if faults:
        print(f"{faults} rows of README.md are not what comes out", file=sys.stderr)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())

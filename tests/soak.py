"""Random lives for a long time, the model beside each: soak.py [SECONDS [SEED]].

The lives are those of test_model.py, with other seeds than the tests have. What disagrees is raised. Prints
what it did, and how resident memory drifted from a fifth of the time on. Hypothesis keeps some of what it
draws, so that is only told; the driver of tests/fuzz judges it, in the same time (.ci/deep soak).
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from test_model import EngineAndModel

SECONDS = 3600.0
LIVES = settings(
    max_examples=20,
    stateful_step_count=60,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def kept_bytes() -> int:
    """Resident memory that was written to and is in use."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


def main(seconds: float, first_seed: int) -> None:
    """Live, and look at the memory after each batch of lives."""
    nr_steps = nr_lives = 0

    class Counted(EngineAndModel):
        def teardown(self) -> None:
            nonlocal nr_lives
            nr_lives += 1
            super().teardown()

        def check_invariants(self, *arguments: Any, **options: Any) -> None:
            nonlocal nr_steps
            nr_steps += 1
            super().check_invariants(*arguments, **options)

    began, sizes, number = time.monotonic(), list[tuple[float, int]](), first_seed
    while (now := time.monotonic() - began) < seconds:
        print(f"{now:6.0f} s, seed {number}", end="\r", flush=True)
        run_state_machine_as_test(seed(number)(Counted), settings=LIVES)
        number += 1
        sizes.append((time.monotonic() - began, kept_bytes()))
    warm = [size for at, size in sizes if at > seconds / 5]
    tenth = max(1, len(warm) // 10)
    before, after = median(warm[:tenth]), median(warm[-tenth:])
    print(
        f"{nr_lives} lives of {nr_steps} steps in {time.monotonic() - began:.0f} s, "
        f"seeds {first_seed} to {number - 1}; {before / 1e6:.1f} MB kept after warming up, "
        f"{after / 1e6:.1f} MB in the end, drift {after / before - 1:+.2%}"
    )


if __name__ == "__main__":
    arguments = [float(argument) for argument in sys.argv[1:]]
    main(arguments[0] if arguments else SECONDS, int(arguments[1]) if len(arguments) > 1 else 1)

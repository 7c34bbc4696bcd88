"""What a new value of a knob does, and which values are refused because of other knobs (spec 8)."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from ._core import Core
from .crawler import RUN_ONESHOT
from .errors import BusyError, KnobError
from .knobs import Knobs
from .scheduler import Scheduler


def check_start_values(knobs: Knobs, given: Mapping[str, object], *, is_upstream: bool) -> None:
    """KnobError if start values do not go together. An advisor sets its own `pages_to_scan`."""
    _check_run(knobs.run, is_upstream)
    if knobs.one_shot_scanning and knobs.run != RUN_ONESHOT:
        raise KnobError(errno.EINVAL, "one_shot_scanning needs run 8")
    if knobs.advisor_mode != "none":
        if "pages_to_scan" in given:
            _check_no_advisor(knobs, knobs.pages_to_scan)
        knobs.put("pages_to_scan", knobs.advisor_min_pages_to_scan)


def apply(
    name: str, value: int | str, *, knobs: Knobs, core: Core, scheduler: Scheduler, is_upstream: bool
) -> None:
    """What the new value does, before it is stored; the lock is held. KnobError refuses it."""
    if scheduler.is_offlining and name in ("run", "max_page_sharing", "merge_across_nodes"):
        raise KnobError(errno.EBUSY, f"{name} cannot change while a memory node goes offline")
    if isinstance(value, str):  # there is one such knob
        scheduler.set_advisor(value)
        return
    match name:
        case "run":
            _check_run(value, is_upstream)
            scheduler.set_run(value)
        case "one_shot_scanning":
            if knobs.run != RUN_ONESHOT or knobs.one_shot_scanning:
                reason = "a request is pending" if knobs.one_shot_scanning else "run is not 8"
                raise KnobError(errno.EINVAL, f"one_shot_scanning cannot be {value}: {reason}")
            scheduler.crawl_now()
        case "sleep_millisecs":
            if value != knobs.sleep_millisecs:
                scheduler.end_nap()
        case "pages_to_scan":
            _check_no_advisor(knobs, value)
            scheduler.scan_now()
        case "smart_scan":
            core.set_smart_scan(bool(value))
        case "stable_node_chains_prune_millisecs":
            core.set_prune_delay(value)
        case "use_zero_pages":
            core.set_use_zero_pages(bool(value))
        case "max_page_sharing" | "merge_across_nodes":
            try:
                if name == "max_page_sharing":
                    core.set_max_page_sharing(value)
                else:
                    core.set_merge_across_nodes(bool(value))
            except BusyError as error:
                raise KnobError(errno.EBUSY, str(error)) from None


def _check_no_advisor(knobs: Knobs, pages_to_scan: int) -> None:
    mode = knobs.advisor_mode
    if mode != "none":
        reason = f"the advisor sets it while advisor_mode is {mode}"
        raise KnobError(errno.EINVAL, f"pages_to_scan cannot be {pages_to_scan}: {reason}")


def _check_run(run: int, is_upstream: bool) -> None:
    if is_upstream and run == RUN_ONESHOT:
        raise KnobError(errno.EINVAL, "run is 8, expected 0, 1 or 2 with policy 'ksm'")

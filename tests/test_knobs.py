"""Knobs and the kernel's text files: `engine.knobs`, constructor keywords and `engine.sysfs`.

Row 87 of section 13.5 of the specification: the rules of its section 8 on every knob. What knobs do over
time is in test_acceptance_13_4.py and test_acceptance_13_5.py.
"""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
import pytest

import lksm
from helpers import expect, finish, pages, repeated

UNSIGNED = {
    "run": 0,
    "sleep_millisecs": 20,
    "pages_to_scan": 100,
    "full_scan_interval": 60_000,
    "stable_node_chains_prune_millisecs": 2000,
    "advisor_max_cpu": 70,
    "advisor_min_pages_to_scan": 500,
    "advisor_max_pages_to_scan": 30_000,
    "advisor_target_scan_time": 200,
}
SIGNED = {"scan_boost": 100, "one_shot_scanning": 0, "max_page_sharing": 256}
SWITCHES = {"smart_scan": 0, "use_zero_pages": 0}
NUMBERS = {**UNSIGNED, **SIGNED}
DEFAULTS = {**NUMBERS, **SWITCHES}
PRUNE = "stable_node_chains_prune_millisecs"
ADVISOR = ("advisor_max_cpu", "advisor_min_pages_to_scan", "advisor_max_pages_to_scan")
MILLISECONDS = ("sleep_millisecs", "pages_to_scan", "full_scan_interval", PRUNE, *ADVISOR)  # any 32 bits
COUNTER_FILES = [
    "full_scans",
    "scanning_process",
    "pages_shared",
    "pages_sharing",
    "pages_unshared",
    "pages_volatile",
    "stable_node_chains",
    "stable_node_dups",
    "pages_scanned",
    "pages_skipped",
    "ksm_zero_pages",
    "general_profit",
]
COUNTER_OF = {"ksm_zero_pages": "zero_pages"}  # all others are named like their file
FOREVER = 2**31 - 1


def refused(engine: lksm.Engine, name: str, text: str) -> int | None:
    """The errno a store is refused with; the message names the knob and what was stored."""
    before = engine.sysfs.read(name)
    with pytest.raises(lksm.KnobError) as error:
        engine.sysfs.write(name, text)
    assert name in str(error.value) and "\n" not in str(error.value)
    assert engine.sysfs.read(name) == before
    assert isinstance(error.value, OSError)
    return error.value.errno


# ---- defaults, keywords, attributes


@pytest.mark.parametrize(("name", "value"), DEFAULTS.items())
def test_defaults_are_the_kernels(engine: lksm.Engine, name: str, value: int) -> None:
    """An engine without keywords has the kernel's values, as attribute and as text."""
    assert getattr(engine.knobs, name) == value
    assert engine.sysfs.read(name) == f"{value}\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [("pages_to_scan", 7), ("max_page_sharing", 2), ("run", 8), ("run", 1), ("sleep_millisecs", 0)]
    + [("scan_boost", 10_000), ("full_scan_interval", 2**32 - 1), ("smart_scan", 1)]
    + [(PRUNE, 0), (PRUNE, 2**32 - 1)],
)
def test_knobs_are_keywords(name: str, value: int) -> None:
    """A knob may be given to the constructor."""
    engine = lksm.Engine(**{name: value})  # type: ignore[arg-type]
    assert getattr(engine.knobs, name) == value
    assert engine.sysfs.read(name) == f"{value}\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in MILLISECONDS for value in (0, 1, 2**32 - 1)]
    + [("run", 1), ("run", 8), ("scan_boost", 101), ("scan_boost", 10_000), ("smart_scan", 1)]
    + [("max_page_sharing", 2), ("max_page_sharing", FOREVER)],
)
def test_attributes_and_files_are_one(engine: lksm.Engine, name: str, value: int) -> None:
    """What is set as an attribute is read from the file, and the other way round."""
    setattr(engine.knobs, name, value)
    assert engine.sysfs.read(name) == f"{value}\n"
    engine.sysfs.write(name, f"{DEFAULTS[name]}\n")
    assert getattr(engine.knobs, name) == DEFAULTS[name]


@pytest.mark.parametrize(
    ("name", "value"),
    [("pages_to_scan", -1), ("pages_to_scan", 2**32), ("max_page_sharing", 1), ("max_page_sharing", 0)]
    + [("run", value) for value in (3, 4, 5, 6, 7, 9, -1)]
    + [(name, value) for name in ("sleep_millisecs", "full_scan_interval", PRUNE) for value in (-1, 2**32)]
    + [("scan_boost", value) for value in (0, 99, 10_001, -100)]
    + [("one_shot_scanning", value) for value in (0, 3, -1)]
    + [("smart_scan", value) for value in (2, -1)]
    + [(name, value) for name in ADVISOR for value in (-1, 2**32)]
    + [("advisor_target_scan_time", value) for value in (0, -1, 2**32)],
)
def test_values_out_of_range(engine: lksm.Engine, name: str, value: int) -> None:
    """A value outside the range is refused by attribute and keyword, and the old one stays."""
    engine.knobs.run = 8 if name == "one_shot_scanning" else 0
    with pytest.raises(lksm.KnobError, match=name) as error:
        setattr(engine.knobs, name, value)
    assert str(value) in str(error.value)
    assert error.value.errno == errno.EINVAL
    assert getattr(engine.knobs, name) == DEFAULTS[name]
    with pytest.raises(lksm.KnobError, match=name):
        lksm.Engine(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["1", 1.5, None])
@pytest.mark.parametrize("name", DEFAULTS)
def test_values_of_another_type(engine: lksm.Engine, name: str, value: Any) -> None:
    """A knob that is a number takes numbers only."""
    with pytest.raises((lksm.KnobError, TypeError)):
        setattr(engine.knobs, name, value)
    assert getattr(engine.knobs, name) == DEFAULTS[name]


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("name", SWITCHES)
def test_switches_take_truth_values(engine: lksm.Engine, name: str, value: bool) -> None:
    """A switch may be set to True and False, and shows 1 and 0."""
    setattr(engine.knobs, name, value)
    assert getattr(engine.knobs, name) == int(value)
    assert engine.sysfs.read(name) == f"{int(value)}\n"


@pytest.mark.parametrize("run", [0, 1, 2])
def test_a_request_as_a_keyword_needs_its_mode(run: int) -> None:
    """An engine may be made with a request if it is made in one-shot mode."""
    engine = lksm.Engine(run=8, one_shot_scanning=2)
    assert engine.knobs.one_shot_scanning == 2
    with pytest.raises(lksm.KnobError, match="one_shot_scanning") as error:
        lksm.Engine(run=run, one_shot_scanning=2)
    assert error.value.errno == errno.EINVAL


def test_upstream_has_smart_scan() -> None:
    """With policy "ksm" `smart_scan` is on at first, and `run` has no one-shot mode."""
    engine = lksm.Engine(policy="ksm")
    assert engine.knobs.smart_scan == 1
    assert lksm.Engine(policy="ksm", smart_scan=0).knobs.smart_scan == 0
    for value in (0, 1, 2):
        engine.knobs.run = value
        assert engine.sysfs.read("run") == f"{value}\n"
    assert refused(engine, "run", "8") == errno.EINVAL
    with pytest.raises(lksm.KnobError):
        lksm.Engine(policy="ksm", run=8)


def test_a_misspelt_attribute_is_an_error(engine: lksm.Engine) -> None:
    """Setting a knob that does not exist does not pass silently."""
    with pytest.raises((AttributeError, lksm.KnobError)):
        engine.knobs.pages_to_scann = 5  # type: ignore[attr-defined]
    with pytest.raises((TypeError, lksm.KnobError)):
        lksm.Engine(pages_to_scann=5)  # type: ignore[call-arg]


# ---- text


@pytest.mark.parametrize("before", ["", "+", "00", "+000"])
@pytest.mark.parametrize("behind", ["", "\n"])
@pytest.mark.parametrize(
    ("name", "digits"),
    [(name, digits) for name in MILLISECONDS for digits in ("0", "5", "4294967295")]
    + [("run", digits) for digits in ("0", "1", "2", "8")]
    + [("scan_boost", "100"), ("scan_boost", "10000"), ("max_page_sharing", "2")]
    + [("one_shot_scanning", "1"), ("one_shot_scanning", "2")],
)
def test_good_text(engine: lksm.Engine, name: str, digits: str, before: str, behind: str) -> None:
    """Digits, with a plus before and a newline behind if one likes; the whole text is consumed."""
    engine.knobs.run = 8
    text = before + digits + behind
    assert engine.sysfs.write(name, text) == len(text)
    assert engine.sysfs.read(name) == f"{digits}\n"
    assert getattr(engine.knobs, name) == int(digits)


@pytest.mark.parametrize(
    ("text", "value"),
    [(text, 1) for text in ("1", "y", "Y", "on", "ON", "oN", "1\n", "yes", "y?", "1 0", "on.", "one", "10")]
    + [
        (text, 0) for text in ("0", "n", "N", "off", "OFF", "oFf", "of", "0\n", "no", "nonsense", "0x1", "01")
    ],
)
@pytest.mark.parametrize("name", SWITCHES)
def test_good_text_for_a_switch(engine: lksm.Engine, name: str, text: str, value: int) -> None:
    """Of a switch's text the first letter counts, and the second of "on" and "off"."""
    setattr(engine.knobs, name, 1 - value)
    assert engine.sysfs.write(name, text) == len(text)
    assert engine.sysfs.read(name) == f"{value}\n"


@pytest.mark.parametrize(
    "text", ["", "\n", "2", "-1", "+1", " 1", "o", "o1", "x", "\0", "\N{FULLWIDTH DIGIT ONE}"]
)
@pytest.mark.parametrize("name", SWITCHES)
def test_bad_text_for_a_switch(engine: lksm.Engine, name: str, text: str) -> None:
    """Anything else is EINVAL."""
    assert refused(engine, name, text) == errno.EINVAL


def test_the_length_is_that_of_the_encoded_text(engine: lksm.Engine) -> None:
    """A switch looks at the first letter only, so a text may go on with anything, and counts in bytes."""
    assert engine.sysfs.write("smart_scan", "y\N{EURO SIGN}") == 4


BAD_TEXT = [
    "",
    "\n",
    " 5",
    "5 ",
    "5\n\n",
    "0x5",
    "5a",
    "a",
    "-1",
    "--1",
    "++1",
    "+",
    "-",
    "1.0",
    "1e3",
    "1_0",
    "5\0",
    "\N{ARABIC-INDIC DIGIT FIVE}",
]


@pytest.mark.parametrize("text", BAD_TEXT)
@pytest.mark.parametrize("name", NUMBERS)
def test_bad_text(engine: lksm.Engine, name: str, text: str) -> None:
    """Anything else is EINVAL, and the old value stays."""
    engine.knobs.run = 8 if name == "one_shot_scanning" else 0
    assert refused(engine, name, text) == errno.EINVAL


@pytest.mark.parametrize("text", ["4294967296", "99999999999999999999999999", "9" * 5000])
@pytest.mark.parametrize("name", UNSIGNED)
def test_numbers_over_32_bits(engine: lksm.Engine, name: str, text: str) -> None:
    """An unsigned knob refuses more than 32 bits with EINVAL."""
    assert refused(engine, name, text) == errno.EINVAL


@pytest.mark.parametrize("text", ["2147483648", "-2147483649", "99999999999999999999999999", "9" * 5000])
@pytest.mark.parametrize("name", ["scan_boost", "one_shot_scanning"])
def test_overflow_is_no_special_case(engine: lksm.Engine, name: str, text: str) -> None:
    """Of these every text that is not a value is EINVAL, overflow too."""
    engine.knobs.run = 8
    assert refused(engine, name, text) == errno.EINVAL


@pytest.mark.parametrize("text", ["-1", "-2147483648", "1", "0", "-0"])
def test_max_page_sharing_below_2(engine: lksm.Engine, text: str) -> None:
    """A number that fits an int and is less than 2 is EINVAL."""
    assert refused(engine, "max_page_sharing", text) == errno.EINVAL


@pytest.mark.parametrize("text", ["2147483648", "99999999999999999999999999", "9" * 5000])
def test_numbers_over_31_bits(engine: lksm.Engine, text: str) -> None:
    """`max_page_sharing` is a signed number in the kernel: overflow is ERANGE."""
    assert refused(engine, "max_page_sharing", text) == errno.ERANGE


def test_the_greatest_numbers(engine: lksm.Engine) -> None:
    """The ends of the ranges are accepted."""
    for name in MILLISECONDS:
        assert engine.sysfs.write(name, "4294967295") == 10
        assert engine.sysfs.write(name, "0") == 1
    assert engine.sysfs.write("scan_boost", "10000") == 5
    assert engine.sysfs.write("scan_boost", "100") == 3
    assert engine.sysfs.write("max_page_sharing", str(FOREVER)) == 10
    assert engine.sysfs.write("max_page_sharing", "2") == 1


@pytest.mark.parametrize("name", COUNTER_FILES)
def test_counters_are_files(engine: lksm.Engine, name: str) -> None:
    """Every counter of the kernel is a file with its number and a newline, which cannot be written."""
    engine.knobs.use_zero_pages = 1
    engine.attach(pages("P P 0 0 x"), mergeable=True)
    engine.full()
    counter = COUNTER_OF.get(name, name)
    assert engine.sysfs.read(name) == f"{getattr(engine.counters(), counter)}\n"
    with pytest.raises(lksm.KnobError, match=name) as error:
        engine.sysfs.write(name, "0")
    assert error.value.errno == errno.EACCES


@pytest.mark.parametrize("name", ["nonesuch", "", "RUN", "run ", "../ksm/run", "__class__"])
def test_names_that_do_not_exist(engine: lksm.Engine, name: str) -> None:
    """A name that is no file of ours is ENOENT for reading and writing."""
    for use in (lambda: engine.sysfs.read(name), lambda: engine.sysfs.write(name, "1")):
        with pytest.raises(lksm.KnobError) as error:
            use()
        assert error.value.errno == errno.ENOENT


# ---- run


@pytest.mark.parametrize("value", [0, 1, 2, 8])
def test_run_reads_what_was_stored(engine: lksm.Engine, value: int) -> None:
    """`run` shows 0, 1, 2 and 8 as they were stored."""
    engine.sysfs.write("run", f"{value}\n")
    assert engine.sysfs.read("run") == f"{value}\n"
    assert engine.knobs.run == value


@pytest.mark.parametrize("value", ["3", "4", "5", "6", "7", "9", "10", "4294967295"])
def test_run_takes_no_other_number(engine: lksm.Engine, value: str) -> None:
    """The sums of bits that the original accepted are refused."""
    assert refused(engine, "run", value) == errno.EINVAL


@pytest.mark.parametrize("value", [0, 1, 8])
def test_synchronous_scans_do_not_ask_run(engine: lksm.Engine, value: int) -> None:
    """`full` scans whether `run` is 0, 1 or 8."""
    engine.knobs.run = value
    engine.attach(pages("P P"))
    engine.full()
    expect(engine, shared=1, sharing=1)


def test_run_2_queues_nothing(engine: lksm.Engine) -> None:
    """While `run` is 2 a full scan visits nothing and counts as none."""
    engine.attach(pages("P P"))
    engine.knobs.run = 2
    report = engine.full()
    assert (report.pages_scanned, report.nr_slots, report.merged) == (0, 0, 0)
    assert engine.crawl("full") == 0
    assert engine.scan() == 0
    expect(engine, rmap_items=0, full_scans=0)


def test_run_2_twice(engine: lksm.Engine) -> None:
    """Storing 2 again changes nothing."""
    engine.attach(pages("P P"), mergeable=True)
    engine.full()
    for _ in range(2):
        engine.knobs.run = 2
        expect(engine, shared=0, sharing=0, rmap_items=0, full_scans=1, broken=1)


def test_unmerge_does_not_bring_the_gate_back(gated_engine: lksm.Engine) -> None:
    """Rounds are counted on after unmerging: initial rounds happen once in an engine's life."""
    gated_engine.attach(pages("P P x"))
    for _ in range(3):
        gated_engine.full()
    gated_engine.knobs.run = 2
    gated_engine.knobs.run = 0
    report = gated_engine.full()
    assert report.round == 4
    expect(gated_engine, shared=1, sharing=1, unshared=1, volatile=0)


@pytest.mark.parametrize("before", [0, 1, 2, 8])
@pytest.mark.parametrize("after", [0, 1, 2, 8])
def test_every_transition_of_run(engine: lksm.Engine, before: int, after: int) -> None:
    """From every mode to every mode; only into 2 anything is unmerged, and rounds go on being counted."""
    engine.attach(pages("P P"), mergeable=True)
    engine.full()
    engine.knobs.run = before
    is_merged = before != 2
    expect(engine, shared=int(is_merged), sharing=int(is_merged))
    engine.knobs.run = after
    is_merged = is_merged and after != 2
    expect(engine, shared=int(is_merged), sharing=int(is_merged), scanning_process=1, full_scans=1)
    assert engine.sysfs.read("run") == f"{after}\n"
    report = engine.full()
    assert report.pages_scanned == (0 if after == 2 else 2)


@pytest.mark.parametrize("value", [0, 1, 8])
def test_a_scan_may_change_mode_on_its_way(engine: lksm.Engine, value: int) -> None:
    """1 → 8 and 8 → 1 leave a prepared scan alone; storing 0 ends it, with all that waits still waiting."""
    engine.knobs.run = 8 if value == 1 else 1
    engine.attach(repeated("P", 10), mergeable=True)
    engine.crawl("full")
    engine.scan(4)
    engine.knobs.run = value
    assert engine.scan(2) == (2 if value else 0)
    expect(engine, nr_scannable=1, full_scans=0)
    report = engine.full()
    assert report.pages_scanned == (10 if value else 6)
    expect(engine, shared=1, sharing=9, full_scans=2 if value else 1)


# ---- one_shot_scanning


@pytest.mark.parametrize("kind", [1, 2])
def test_protocol_of_requests(kind: int) -> None:
    """0 → the request → busy → 0, and back; a call that scans on the spot is no answer to it."""
    clock = lksm.VirtualClock()
    engine = lksm.Engine(clock=clock, initial_rounds=0)
    engine.attach(repeated("P", 5), mergeable=True)
    assert refused(engine, "one_shot_scanning", str(kind)) == errno.EINVAL  # run is 0
    engine.knobs.run = 8
    engine.knobs.one_shot_scanning = kind
    for text in ("1", "2", "0"):
        assert refused(engine, "one_shot_scanning", text) == errno.EINVAL
    engine.knobs.run = 8  # storing 8 again changes nothing (8.3)
    assert engine.sysfs.read("one_shot_scanning") == f"{kind}\n"
    engine.advance(100)
    assert engine.sysfs.read("one_shot_scanning") == "0\n"
    expect(engine, shared=1, sharing=4, full_scans=kind - 1)
    assert engine.sysfs.write("one_shot_scanning", f"+{3 - kind}\n") == 3


@pytest.mark.parametrize("value", [0, 1, 2])
def test_a_request_ends_with_its_mode(engine: lksm.Engine, value: int) -> None:
    """8 → 0, 1 or 2 drops it (8.3)."""
    engine.knobs.run = 8
    engine.knobs.one_shot_scanning = 1
    engine.knobs.run = value
    assert engine.knobs.one_shot_scanning == 0
    engine.knobs.run = 8
    assert engine.sysfs.read("one_shot_scanning") == "0\n"
    engine.knobs.one_shot_scanning = 2


# ---- pages_to_scan, max_page_sharing


def test_batches_are_pages_to_scan_long(engine: lksm.Engine) -> None:
    """A batch without a number takes the knob's (row 81: 7, 7, 6)."""
    engine.knobs.pages_to_scan = 7
    engine.attach(repeated("P", 20), mergeable=True)
    engine.crawl("full")
    assert [engine.scan() for _ in range(4)] == [7, 7, 6, 0]
    expect(engine, shared=1, sharing=19)


def test_no_pages_to_scan(engine: lksm.Engine) -> None:
    """With `pages_to_scan` 0 a batch makes no progress, and a batch with a number does."""
    engine.knobs.pages_to_scan = 0
    engine.attach(pages("P P"), mergeable=True)
    engine.crawl("full")
    assert engine.scan() == 0
    expect(engine, rmap_items=0)
    assert finish(engine) == 2
    expect(engine, shared=1, sharing=1, full_scans=1)


def test_full_does_not_ask_pages_to_scan(engine: lksm.Engine) -> None:
    """`full` runs to completion whatever the batch is."""
    engine.attach(pages("P P x"))
    for batch in (1, 2, 3, 1000):
        engine.knobs.pages_to_scan = batch
        assert engine.full().pages_scanned == 3


def test_the_limit_may_change_while_nothing_is_shared(engine: lksm.Engine) -> None:
    """Unshared pages do not hold the limit."""
    engine.attach(repeated("P", 9), mergeable=True)
    engine.attach(pages("a b c"), mergeable=True)
    engine.knobs.max_page_sharing = 3
    engine.full()
    expect(engine, shared=3, sharing=6)
    with pytest.raises(lksm.KnobError) as error:
        engine.knobs.max_page_sharing = 4
    assert error.value.errno == errno.EBUSY
    engine.knobs.max_page_sharing = 3
    assert engine.knobs.max_page_sharing == 3


# ---- stable_node_chains_prune_millisecs


def test_the_prune_delay_holds_from_the_next_end_of_a_scan() -> None:
    """A chain with one frame left stays for the longest delay, and goes when a shorter one is over."""
    clock = lksm.VirtualClock()
    engine = lksm.Engine(initial_rounds=0, max_page_sharing=2, clock=clock, **{PRUNE: 2**32 - 1})  # type: ignore[arg-type]
    process = engine.attach(repeated("P", 4), mergeable=True)
    engine.full()
    expect(engine, shared=2, sharing=2, chains=1, dups=2)
    process.unmap(0, 2)
    clock.tick(2**32 - 2)
    engine.full()
    expect(engine, shared=1, sharing=1, chains=1, dups=1)
    engine.sysfs.write(PRUNE, "4294967294\n")
    expect(engine, chains=1, dups=1)
    engine.full()
    expect(engine, shared=1, sharing=1, chains=0, dups=0)


@pytest.mark.parametrize("value", [0, 2000])
def test_unmerge_and_exit_leave_no_chain(value: int) -> None:
    """Whatever the delay, what has no frame left is no chain."""
    engine = lksm.Engine(initial_rounds=0, max_page_sharing=2, **{PRUNE: value})  # type: ignore[arg-type]
    process = engine.attach(repeated("P", 4), mergeable=True)
    engine.full()
    expect(engine, chains=1, dups=2)
    engine.knobs.run = 2
    expect(engine, chains=0, dups=0)
    engine.knobs.run = 0
    engine.full()
    expect(engine, chains=1, dups=2)
    process.exit()
    expect(engine, shared=0, chains=0, dups=0)


def test_a_scan_that_is_stopped_prunes_too() -> None:
    """`run` 0 ends a scan, and the end of a scan prunes."""
    engine = lksm.Engine(initial_rounds=0, max_page_sharing=2, run=1, **{PRUNE: 0})  # type: ignore[arg-type]
    process = engine.attach(repeated("P", 5), mergeable=True)
    engine.full()
    process.unmap(0, 2)
    engine.crawl("full")
    engine.scan(1)
    expect(engine, shared=1, sharing=1, chains=1, dups=1)
    engine.knobs.run = 0
    expect(engine, shared=1, sharing=1, chains=0, dups=0)


def test_numbers_of_thousands_of_digits(engine: lksm.Engine) -> None:
    """Python does not write them; they are refused all the same."""
    with pytest.raises(lksm.KnobError, match="pages_to_scan") as error:
        engine.knobs.pages_to_scan = 10**5000
    assert error.value.errno == errno.EINVAL


def test_full_scans_after_unmerging() -> None:
    """Under upstream's policy it shows the round, which begins anew; under LKSM's it is never reset."""
    for policy, expected in (("ksm", 0), ("lksm", 2)):
        engine = lksm.Engine(policy=policy)  # type: ignore[arg-type]
        engine.attach(np.zeros((1, 4096), np.uint8))
        engine.full()
        engine.full()
        engine.knobs.run = 2
        assert engine.sysfs.read("full_scans") == f"{expected}\n"

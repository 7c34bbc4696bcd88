"""Random stories: the same random life of a few processes in the kernel and in the engine.

Hypothesis picks the steps. It is derandomized, so every run tells the same stories, and when one fails
it runs shorter and shorter ones through the kernel and reports the shortest.
"""

from __future__ import annotations

from typing import TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from side_by_side import Referee, SideBySide

Step: TypeAlias = tuple[str, int, int, int, str]

WORDS = [*"aaabbcdef0"]
MOST_PROCESSES = 5

picture = st.lists(st.sampled_from(WORDS), min_size=1, max_size=16).map(" ".join)
number = st.integers(0, 2**16)
step = st.tuples(
    st.sampled_from(["write"] * 8 + ["start", "exit", "unmergeable", "mergeable", "unmerge", "nothing"]),
    number,
    number,
    number,
    st.one_of(st.sampled_from(WORDS), picture),
)
chapter = st.lists(step, max_size=4)
story = st.lists(chapter, min_size=4, max_size=18)

stories = settings(max_examples=24, suppress_health_check=list(HealthCheck))


@stories
@given(first=picture, second=picture, chapters=story)
def test_stories(referee: Referee, first: str, second: str, chapters: list[list[Step]]) -> None:
    """Whatever processes do between passes, every counter agrees after every pass."""
    tell(referee, {"smart_scan": 0}, [first, second], chapters)


@stories
@given(first=picture, second=picture, chapters=story)
def test_stories_with_smart_scan(
    referee: Referee, first: str, second: str, chapters: list[list[Step]]
) -> None:
    """The same, where pages that do not merge are skipped."""
    tell(referee, {"smart_scan": 1}, [first, second], chapters)


@stories
@given(first=picture, second=picture, chapters=story, limit=st.integers(2, 5))
def test_stories_with_a_limit(
    referee: Referee, first: str, second: str, chapters: list[list[Step]], limit: int
) -> None:
    """The same with few pages a frame: every counter until something leaves, then what no order changes."""
    tell(referee, {"smart_scan": 0, "max_page_sharing": limit}, [first, second], chapters)


def tell(referee: Referee, knobs: dict[str, int], pictures: list[str], chapters: list[list[Step]]) -> None:
    """Steps, a pass, steps, a pass ... and two passes at the end.

    Where the one known difference would come in, both begin anew, so that all that follows must agree again.
    """
    is_limited = "max_page_sharing" in knobs
    has_broken = False
    with referee(**knobs) as both:
        for each in pictures:
            both.start(each)
        for steps in [*chapters, [], []]:
            frames = both.frames()
            for each_step in steps:
                take(both, each_step)
            if both.is_taken_over(frames):
                both.unmerge()
            has_broken = has_broken or any(kind not in ("start", "nothing") for kind, *_ in steps)
            both.one_pass(sums=is_limited and has_broken)
        for twin in both.twins:
            twin.check_bytes()


def take(both: SideBySide, step: Step) -> None:
    """One step, with numbers cut to what there is."""
    kind, which, start, stop, words = step
    if kind == "start":
        if len(both.twins) < MOST_PROCESSES:
            both.start(words)
        return
    if kind == "unmerge":
        both.unmerge()
    if not both.twins or kind in ("unmerge", "nothing"):
        return
    twin = both.twins[which % len(both.twins)]
    nr_pages = twin.process.nr_pages
    start %= nr_pages
    if kind == "write":
        twin.write(start, words.split()[0])
    elif kind == "exit":
        both.exit(twin)
    elif kind == "unmergeable":
        twin.unmergeable(start, start + 1 + stop % (nr_pages - start))
    elif kind == "mergeable":
        twin.mergeable(start, start + 1 + stop % (nr_pages - start))

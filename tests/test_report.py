"""Who shares what with whom, and why a page is not merged: tables, groups, matrix and `explain`."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash

import lksm
from helpers import PAGE_SIZE, content, expect, finish, ids, pages, partition, repeated, unique_pages
from lksm.memory import RegionFlag

FIELDS = ["frame", "pages", "processes", "digest", "zero", "first_process", "first_page"]


def digest(word: str) -> int:
    return xxhash.xxh3_64_intdigest(content(word))


def reason(engine: lksm.Engine, process: lksm.Process, page: int) -> str:
    """The name of the reason; the text is checked to be one sentence."""
    explanation = engine.explain(process, page)
    assert explanation.text and "\n" not in explanation.text
    return explanation.reason.name


# ---- page_table


def test_page_table_is_an_array(engine: lksm.Engine) -> None:
    """One int64 for each page: equal ids where pages are merged together, negative where they are not."""
    process = engine.attach([lksm.Region(0, pages("a b"), rows=np.array([0, 1, -1]))], mergeable=True)
    engine.attach(pages("a"), mergeable=True)
    engine.full()
    table = engine.page_table(process)
    assert table.dtype == np.int64 and table.shape == (3,)
    assert table[0] >= 0 and list(table[1:]) == [-1, -3]


def test_page_table_is_the_callers(engine: lksm.Engine) -> None:
    """What was returned is a copy."""
    process = engine.attach(pages("a a"), mergeable=True)
    engine.full()
    engine.page_table(process)[:] = -1
    assert min(ids(engine, process)) >= 0


def test_frame_ids_are_never_used_again(engine: lksm.Engine) -> None:
    """A content that is merged again after unmerging gets new frame ids."""
    process = engine.attach(pages("a a b b"), mergeable=True)
    engine.full()
    before = set(ids(engine, process))
    engine.knobs.run = 2
    engine.knobs.run = 0
    engine.full()
    after = set(ids(engine, process))
    assert len(before) == len(after) == 2
    assert min(after) > max(before)


# ---- groups


def test_groups(engine: lksm.Engine) -> None:
    """One row for each merged content, the most pages first."""
    a = engine.attach(pages("x P Q 0 0"), mergeable=True)
    b = engine.attach(pages("Q Q P y 0"), mergeable=True)
    c = engine.attach(pages("z 0"), mergeable=True)
    engine.full()
    groups = engine.groups()
    assert list(groups.dtype.names or ()) == FIELDS
    assert list(groups["pages"]) == [4, 3, 2]
    assert list(groups["processes"]) == [3, 2, 2]
    assert list(groups["digest"]) == [digest("0"), digest("Q"), digest("P")]
    assert list(groups["zero"]) == [True, False, False]
    assert list(groups["first_process"]) == [0, 0, 0]
    assert list(groups["first_page"]) == [3, 2, 1]
    assert list(groups["frame"]) == [ids(engine, c)[1], ids(engine, b)[0], ids(engine, a)[1]]
    assert int(groups["pages"].sum()) == 9


def test_types_of_the_fields_of_groups(engine: lksm.Engine) -> None:
    """The fields have the types that were promised, also when there are no groups."""
    for _ in range(2):
        dtype = engine.groups().dtype
        assert [dtype[name].str.lstrip("<|=") for name in FIELDS] == [
            "i8",
            "i8",
            "i8",
            "u8",
            "b1",
            "i8",
            "i8",
        ]
        engine.attach(pages("a a"), mergeable=True)
        engine.full()


def test_groups_without_merges(engine: lksm.Engine) -> None:
    """Nothing merged, no groups."""
    engine.attach(pages("a b"), mergeable=True)
    assert len(engine.groups()) == 0
    engine.full()
    assert len(engine.groups()) == 0


def test_groups_from_a_number_of_pages(engine: lksm.Engine) -> None:
    """`min_pages` leaves out the smaller groups; 1 shows frames with a single user too."""
    memory = pages("a a b b b c c")
    engine.attach(memory, mergeable=True)
    engine.full()
    memory[6] = 0
    engine.full()
    assert [len(engine.groups(min_pages=n)) for n in (1, 2, 3, 4)] == [3, 2, 1, 0]
    assert list(engine.groups(min_pages=1)["pages"]) == [3, 2, 1]


def test_the_dups_of_a_chain_are_one_group() -> None:
    """A content that the limit split into several frames is one row with the lowest frame id."""
    engine = lksm.Engine(initial_rounds=0, max_page_sharing=4)
    process = engine.attach(repeated("P", 10), mergeable=True)
    engine.full()
    (row,) = engine.groups()
    assert (row["pages"], row["processes"], row["frame"]) == (10, 1, min(ids(engine, process)))
    assert row["digest"] == digest("P")


def test_first_process_is_its_place_among_processes(engine: lksm.Engine) -> None:
    """`first_process` counts the processes that are there now."""
    gone = engine.attach(pages("x"), mergeable=True)
    engine.attach(pages("y"), mergeable=True)
    engine.attach(pages("z P"), mergeable=True)
    engine.attach(pages("P"), mergeable=True)
    engine.full()
    gone.exit()
    (row,) = engine.groups()
    assert (row["first_process"], row["first_page"]) == (1, 1)


def test_groups_of_a_domain(engine: lksm.Engine) -> None:
    """A domain has its own groups."""
    engine.attach(pages("P P"), mergeable=True)
    engine.attach(pages("P P P Q Q"), mergeable=True, domain=7)
    engine.full()
    assert list(engine.groups(domain=0)["pages"]) == [2]
    assert list(engine.groups(domain=7)["pages"]) == [3, 2]
    assert list(engine.groups()["pages"]) == [3, 2, 2]


def test_digests_do_not_depend_on_the_engine() -> None:
    """The digest is the content's own: seeds and runs do not change it."""
    for seed in (0, 1, 12345):
        engine = lksm.Engine(initial_rounds=0, seed=seed)
        engine.attach(pages("P P"), mergeable=True)
        engine.full()
        assert list(engine.groups()["digest"]) == [digest("P")]


@pytest.mark.parametrize("page_size", [64, 256, 65536])
def test_digests_of_other_page_sizes(page_size: int) -> None:
    """The digest is that of the whole page, whatever its size."""
    engine = lksm.Engine(initial_rounds=0, page_size=page_size)
    engine.attach(pages("P P", page_size), mergeable=True)
    engine.full()
    assert list(engine.groups()["digest"]) == [xxhash.xxh3_64_intdigest(content("P", page_size))]


# ---- explain


def test_explain_a_merged_page(engine: lksm.Engine) -> None:
    """A merged page names its frame."""
    process = engine.attach(pages("P P"), mergeable=True)
    engine.full()
    assert reason(engine, process, 0) == "MERGED"
    assert engine.explain(process, 0).frame == ids(engine, process)[0]
    assert engine.explain(process, 0).reason is lksm.Reason.MERGED


def test_explain_a_unique_page(engine: lksm.Engine) -> None:
    """A page that passed and found no twin is unique."""
    process = engine.attach(pages("a"), mergeable=True)
    engine.full()
    assert reason(engine, process, 0) == "UNIQUE"


def test_explain_a_volatile_page(gated_engine: lksm.Engine) -> None:
    """A page that the gate holds back is volatile."""
    process = gated_engine.attach(pages("P P"))
    gated_engine.full()
    assert reason(gated_engine, process, 0) == "VOLATILE"


def test_explain_a_page_not_visited(engine: lksm.Engine) -> None:
    """A page the scan has not reached is not visited."""
    process = engine.attach(pages("P P"), mergeable=True)
    assert reason(engine, process, 0) == "NOT_VISITED"
    engine.crawl("full")
    engine.scan(1)
    assert [reason(engine, process, page) for page in (0, 1)] == ["UNIQUE", "NOT_VISITED"]


def test_explain_a_page_not_registered(engine: lksm.Engine) -> None:
    """Before any crawl a process is not registered."""
    process = engine.attach(pages("P"))
    assert reason(engine, process, 0) == "NOT_REGISTERED"


def test_explain_an_opted_out_page(engine: lksm.Engine) -> None:
    """An opt-out is given as such, at attach or by advice."""
    out = engine.attach(pages("P"), mergeable=False)
    part = engine.attach(pages("P P P"), mergeable=True)
    engine.full()
    part.advise("unmergeable", 1, 2)
    assert reason(engine, out, 0) == "OPTED_OUT"
    assert [reason(engine, part, page) for page in range(3)] == ["MERGED", "OPTED_OUT", "MERGED"]


def test_explain_an_excluded_page(engine: lksm.Engine) -> None:
    """A page of an excluded region says so."""
    process = engine.attach(
        [lksm.Region(0, pages("P")), lksm.Region(PAGE_SIZE, pages("P"), flags=RegionFlag.HUGETLB)],
        mergeable=True,
    )
    engine.full()
    assert reason(engine, process, 1) == "EXCLUDED"


def test_explain_a_page_that_is_shared_already(engine: lksm.Engine) -> None:
    """A page that is physically one with another says so."""
    memory = pages("a")
    engine.attach(memory, mergeable=True)
    again = engine.attach(memory, mergeable=True)
    engine.full()
    assert reason(engine, again, 0) == "ALREADY_SHARED"


def test_explain_a_page_held_back_by_the_limit() -> None:
    """A page whose content is merged, but whose frames are full, says so."""
    engine = lksm.Engine(initial_rounds=0, max_page_sharing=4)
    process = engine.attach(repeated("P", 9), mergeable=True)
    engine.full()
    assert reason(engine, process, 8) == "LIMIT"


def test_explain_an_absent_page(engine: lksm.Engine) -> None:
    """A page that is not there says so, never having been or no longer."""
    process = engine.attach([lksm.Region(0, pages("a b"), rows=np.array([0, -1, 1]))], mergeable=True)
    engine.full()
    process.unmap(2, 3)
    assert [reason(engine, process, page) for page in range(3)] == ["UNIQUE", "ABSENT", "ABSENT"]


def test_explain_has_no_frame_for_other_reasons(engine: lksm.Engine) -> None:
    """Only a merged page has a frame."""
    process = engine.attach(pages("a"), mergeable=True)
    engine.full()
    assert engine.explain(process, 0).frame in (None, -1)


@pytest.mark.parametrize("page", [-1, 1, 1 << 40])
def test_explain_refuses_pages_that_are_not_there(engine: lksm.Engine, page: int) -> None:
    """A page number outside the process is an error."""
    process = engine.attach(pages("a"))
    with pytest.raises((lksm.LksmError, IndexError)):
        engine.explain(process, page)


# ---- sharing_matrix


def test_sharing_matrix(engine: lksm.Engine) -> None:
    """Row i counts i's pages in frames that column j uses too; the diagonal, all its merged pages."""
    engine.attach(pages("P P Q x"), mergeable=True)
    engine.attach(pages("P R R"), mergeable=True)
    engine.attach(pages("Q y"), mergeable=True)
    engine.attach(pages("z"), mergeable=True)
    engine.full()
    matrix = engine.sharing_matrix()
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[3, 2, 1, 0], [1, 3, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    expect(engine, shared=3, sharing=4)
    assert int(np.trace(matrix)) == 7


def test_sharing_matrix_without_processes(engine: lksm.Engine) -> None:
    """No processes, no rows."""
    assert engine.sharing_matrix().shape == (0, 0)


def test_sharing_matrix_by_brute_force(engine: lksm.Engine) -> None:
    """For random pages the matrix is what counting the page tables gives."""
    random = np.random.default_rng(5)
    words = ["0", "a", "b", "c", *(f"u{i}" for i in range(20))]
    processes = [engine.attach(pages(" ".join(random.choice(words, 12))), mergeable=True) for _ in range(6)]
    engine.full()
    tables = [[frame for frame in ids(engine, process) if frame >= 0] for process in processes]
    expected = [[sum(frame in other for frame in table) for other in tables] for table in tables]
    assert engine.sharing_matrix().tolist() == expected


# ---- memory and profit


def test_memory_by_purpose(engine: lksm.Engine) -> None:
    """Reserved bytes are named by purpose; frames are those that were copied."""
    empty = engine.memory()
    assert empty["frames"] == 0
    assert all(isinstance(name, str) and nr_bytes >= 0 for name, nr_bytes in empty.items())
    engine.attach(np.concatenate([unique_pages(100)] * 2), mergeable=True)
    engine.full()
    full = engine.memory()
    assert full["frames"] >= 100 * PAGE_SIZE
    assert full.keys() == empty.keys()
    assert sum(full.values()) > sum(empty.values())


def test_one_copy_per_merged_content(engine: lksm.Engine) -> None:
    """Mutable memory costs one copy of a page for each merged content, not one for each page."""
    engine.attach(repeated("P", 250), mergeable=True)
    engine.attach(unique_pages(250), mergeable=True)
    engine.full()
    assert PAGE_SIZE <= engine.memory()["frames"] < 2 * PAGE_SIZE


def test_copies_are_given_back(engine: lksm.Engine) -> None:
    """When the last user of a copied frame leaves, its bytes are given back."""
    process = engine.attach(np.concatenate([unique_pages(20)] * 2), mergeable=True)
    engine.full()
    assert engine.memory()["frames"] > 0
    process.exit()
    assert engine.memory()["frames"] == 0


def test_profit(engine: lksm.Engine) -> None:
    """General profit is what merging saves less what the engine reserves for itself."""
    engine.attach(repeated("P", 100), mergeable=True)
    engine.full()
    memory = engine.memory()
    bookkeeping = sum(nr_bytes for purpose, nr_bytes in memory.items() if purpose != "frames")
    assert engine.counters().general_profit == 99 * PAGE_SIZE - bookkeeping


def test_partition_of_a_large_random_set(engine: lksm.Engine) -> None:
    """For random pages the page tables are exactly the classes of equal bytes."""
    random = np.random.default_rng(11)
    memory = unique_pages(300)[random.integers(0, 300, 1000)]
    engine.attach(memory, mergeable=True)
    engine.crawl("full")
    finish(engine, 7)
    _, inverse, counts = np.unique(memory, axis=0, return_inverse=True, return_counts=True)
    expected = [int(kind) if counts[kind] > 1 else -1 for kind in inverse.reshape(-1)]
    (process,) = engine.processes
    assert partition([ids(engine, process)]) == partition([expected])

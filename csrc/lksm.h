/*
 * lksm.h - the boundary of the core: plain structs and functions.
 *
 * cffi reads this file verbatim, so it holds declarations only: no includes, no conditionals. Include
 * <stddef.h>, <stdint.h> and <stdbool.h> before it.
 *
 * The core is mechanism: pages, trees, processes, one scan with a budget. It has no globals, threads,
 * clocks or files, and calls nobody back. One engine must be used by one thread at a time, but for lksm_help(), in
 * which a thread also sleeps when there is nothing to do.
 *
 * Functions return 0 or a negative enum lksm_error; results come back through a last parameter called
 * ..._ret, untouched on failure. Page numbers are indices into a process's pages in address order.
 */
#pragma once

#define LKSM_MAX_WINDOW 16	/* the longest merge window, in scans */
#define LKSM_MAX_NODES 256	/* the most memory nodes */

enum lksm_error {
	LKSM_OK = 0,
	LKSM_NO_MEMORY = -1,	/* an allocation failed; the engine is as it was */
	LKSM_INVALID = -2,	/* an argument is outside its range; see lksm_error_text() */
	LKSM_BUSY = -3		/* not while pages are shared */
};

/* Why a page is or is not merged. */
enum lksm_reason {
	LKSM_MERGED,
	LKSM_UNIQUE,
	LKSM_VOLATILE,
	LKSM_NOT_VISITED,
	LKSM_NOT_REGISTERED,
	LKSM_OPTED_OUT,
	LKSM_EXCLUDED,
	LKSM_ALREADY_SHARED,
	LKSM_LIMIT,
	LKSM_ABSENT,
	LKSM_ZERO,
	LKSM_OTHER_NODE,
	LKSM_OTHER_DOMAIN,
	LKSM_SKIPPED
};

/* What an engine's memory is for; the index of lksm_memory()'s result. */
enum lksm_purpose {
	LKSM_FOR_ENGINE,	/* the engine itself */
	LKSM_FOR_PROCESSES,	/* mm_slots, regions and their page flags */
	LKSM_FOR_ITEMS,		/* rmap_items */
	LKSM_FOR_NODES,		/* stable nodes */
	LKSM_FOR_ROOTS,		/* the roots of the forests */
	LKSM_FOR_KEYS,		/* deepened keys */
	LKSM_FOR_PHYSICAL,	/* which pages lie at one address, which of these are on the zero frame */
	LKSM_FOR_FILTERS,	/* at which offsets pages of regions with a key have merged */
	LKSM_FOR_FRAMES,	/* copies of pages: stable frames, and pages forked processes wrote */
	LKSM_FOR_SPARE,		/* room for more of items, nodes and frames */
	LKSM_NR_PURPOSES
};

/* Page table entries that are no frame. */
enum lksm_entry {
	LKSM_ENTRY_PRIVATE = -1,
	LKSM_ENTRY_ZERO = -2,
	LKSM_ENTRY_ABSENT = -3
};

/* What a process waits for: nothing, or a scan, asked for while it was running or frozen. */
enum lksm_pending {
	LKSM_PENDING_NONE,
	LKSM_PENDING_NORMAL,
	LKSM_PENDING_FROZEN
};

/* A 64-bit hash of @nr_bytes bytes under @secret. The core has none of its own. */
typedef uint64_t (*lksm_hash)(const void *bytes, size_t nr_bytes, const void *secret, size_t secret_size);

struct lksm_options {
	uint64_t page_size;		/* bytes, a power of two from 64 */
	uint64_t seed;			/* chooses which cache lines are sampled */
	uint64_t initial_rounds;	/* the checksum gate is closed below this round */
	uint64_t max_page_sharing;	/* sharers a frame may have, at least 2 */
	uint32_t merge_window;		/* scans that the score of a process covers, 1 to LKSM_MAX_WINDOW */
	uint32_t nr_nodes;		/* memory nodes that pages may lie on, 1 to LKSM_MAX_NODES */
	bool gate_first;		/* upstream's order: the gate in every round, and before merged contents */
	bool is_secure;			/* frames are copies, also of immutable pages: none is ever a page's own bytes */
	uint64_t filter_maturity;	/* a filter leaves pages out when it is more than so many rounds old */
	lksm_hash hash;			/* must live as long as the engine, as must the secrets */
	const void *secret;		/* for keys and checksums: this engine's own */
	const void *digest_secret;	/* for digests: the same in every engine */
	size_t secret_size;		/* bytes in each */
};

/* A run of pages of one process. @pages and @rows must stay valid until the process exits. */
struct lksm_region {
	uint64_t address;		/* of the first page; a multiple of the page size */
	uint8_t *pages;			/* the array, at any alignment */
	uint64_t nr_array_pages;	/* whole pages in the array */
	const int64_t *rows;		/* page i is array page rows[i], -1 absent; NULL: page i itself */
	uint64_t nr_pages;		/* pages of the region */
	uint32_t node;			/* memory node that the pages lie on, below nr_nodes */
	bool is_immutable;		/* the owner promises that the bytes never change */
	bool is_tracked;		/* or that they change only by lksm_process_write(), or that lksm_process_touch() tells */
	bool is_excluded;		/* never to be merged */
	uint64_t filter_key;		/* the same for regions that are one thing in several processes; 0: no filter */
	bool is_bss;			/* with the same key, another filter */
};

struct lksm_counters {
	uint64_t pages_shared;		/* distinct merged contents (frames) */
	uint64_t pages_sharing;		/* further pages that use them: what is saved */
	uint64_t pages_unshared;	/* pages that passed the gate but found no twin */
	uint64_t rmap_items;		/* pages visited and remembered */
	uint64_t stable_node_chains;	/* contents with several frames, or that had them when last met or pruned */
	uint64_t stable_node_dups;	/* their frames */
	uint64_t merged;		/* pages that joined a frame that had a sharer, so far */
	uint64_t broken;		/* pages that left a frame that kept one, so far */
	uint64_t pages_scanned;		/* pages visited, so far */
	uint64_t scan_round;		/* the round the unstable tree belongs to */
	uint64_t crawl_round;		/* rounds begun */
	uint64_t nr_registered;		/* registered processes */
	uint64_t nr_scannable;		/* queued ones of class normal */
	uint64_t nr_frozen;		/* queued ones of class frozen */
	uint64_t nr_gated;		/* pages the gate held back in this round */
	uint64_t nr_begun_slots;	/* slots that became the cursor's in this round */
	uint64_t nr_scanned_slots;	/* slots completed in this round */
	uint64_t round_merged;		/* merged in this round */
	uint64_t round_broken;		/* broken in this round */
	uint64_t round_pages;		/* pages visited in this round */
	uint64_t pages_skipped;		/* visits that smart scan left out, so far */
	uint64_t nr_regions;		/* filters in existence: the kernel calls them regions */
	uint64_t share_data;		/* merges of pages in regions that have a filter, so far: of data */
	uint64_t share_bss;		/* of bss */
	uint64_t share_conflicted;	/* of those whose filter was given up, because their sizes differ */
	uint64_t bytes_compared;	/* that compares of two pages looked at, so far */
	uint64_t bytes_hashed;		/* that keys and checksums were taken from, so far */
	uint64_t zero_pages;		/* pages on the zero frame */
	uint64_t zero_saved;		/* what that saves: pages at one address count once */
};

struct lksm_status {
	uint64_t nr_pages;		/* pages of all regions, absent ones included */
	uint64_t nr_mapped;		/* of these, present and not unmapped */
	uint64_t rmap_items;		/* pages visited and remembered */
	uint64_t merging_pages;		/* pages that are merged */
	uint64_t zero_pages;		/* pages on the zero frame */
	uint64_t unshared;		/* pages that passed the gate but found no twin */
	uint64_t nr_merged;		/* sum of the merge window */
	uint64_t nr_scans;		/* pages visited since it was last queued */
	uint64_t elapsed;		/* what its last completed scan took, in the caller's clock */
	uint64_t completion;		/* of all completed scans of processes, which one was its last; 0: none */
	uint64_t window[LKSM_MAX_WINDOW];	/* pages merged in its last scans, oldest first */
	uint32_t nr_window;		/* scans in it: the engine's merge window */
	uint32_t pending;		/* enum lksm_pending */
	bool is_registered;		/* known to the scanner */
	bool is_newcomer;		/* not yet scanned once */
	bool is_scanned;		/* its last scan was completed */
	bool is_cursor;			/* being scanned */
	bool is_mergeable;		/* some page may be merged */
};

struct lksm_explanation {
	uint32_t reason;		/* enum lksm_reason */
	int64_t frame;			/* frame id, or -1 */
	uint64_t nr_sharers;		/* pages merged into that frame, or into the full ones */
	int64_t other_process;		/* position of another process or page it is merged with, or -1 */
	int64_t other_page;
	bool is_private;		/* written or unmerged since its last visit */
	bool is_filtered;		/* SKIPPED by its region's filter, else by smart scan */
};

struct lksm_group {
	int64_t frame;			/* lowest frame id of this content */
	int64_t pages;			/* pages merged into it */
	int64_t processes;		/* distinct processes among them */
	uint64_t digest;		/* hash of the bytes under the digest secret */
	int64_t first_process;		/* position of the first one, in order of creation */
	int64_t first_page;		/* the lowest page of that one */
	bool is_zero;			/* all bytes are zero */
};

int lksm_engine_create(const struct lksm_options *options, struct engine **engine_ret);
/* Touches no memory of the caller's: arrays may be gone before their engine. */
void lksm_engine_destroy(struct engine *engine);
/* The last error in one line, without a full stop. */
const char *lksm_error_text(const struct engine *engine);
/* LKSM_BUSY while any page is shared, unless the value stays as it is. */
int lksm_set_max_page_sharing(struct engine *engine, uint64_t max_page_sharing);
/*
 * On, as at first: pages of all memory nodes are compared. Off: those of one node only, each by itself.
 * LKSM_BUSY while any page is shared, unless it stays as it is.
 */
int lksm_set_merge_across_nodes(struct engine *engine, bool is_on);
/* On: pages that were visited often and are not merged are visited less and less often. Off at first. */
void lksm_set_smart_scan(struct engine *engine, bool is_on);
/* How long a chain is left alone after it was made or pruned, in the caller's clock. 0 at first. */
void lksm_set_prune_delay(struct engine *engine, uint32_t millisecs);
/* On: a page that is all zeros at its visit goes to the zero frame. Off at first; what is there stays there. */
void lksm_set_use_zero_pages(struct engine *engine, bool is_on);
/* On: scans visit what filters would leave out. Off at first. */
void lksm_set_unfiltered(struct engine *engine, bool is_on);

/* A process without pages, at the end of the order of creation. */
int lksm_process_create(struct engine *engine, uint32_t domain, struct mm_slot **process_ret);
/*
 * Adds a region; it may lie over absent pages of others, but no present ones. Pages become mergeable by
 * advice or join.
 */
int lksm_process_map(struct mm_slot *process, const struct lksm_region *region);
/* A process that shares the pages of its parent, with its advice; registered iff the parent is. */
int lksm_process_fork(struct mm_slot *process, struct mm_slot **process_ret);
/* Exit: at return nothing of it is linked or counted. Never fails. */
void lksm_process_destroy(struct mm_slot *process);
/* The pages become absent but keep their numbers; their items go at the next scan. Never fails. */
int lksm_process_unmap(struct mm_slot *process, uint64_t start, uint64_t stop);
/* Copies out; LKSM_INVALID if a page is absent. */
int lksm_process_read(struct mm_slot *process, uint64_t page, uint64_t nr_pages, void *bytes);
/* Writes the owner's array, or this process's own copy after a fork. The page is private at once. */
int lksm_process_write(struct mm_slot *process, uint64_t page, uint64_t offset, const void *bytes,
		       uint64_t nr_bytes);
/*
 * The owner has written the pages: if they are tracked, they are looked at again, wherever they are mapped.
 * Never fails.
 */
int lksm_process_touch(struct mm_slot *process, uint64_t start, uint64_t stop);
/*
 * The pages lie on that memory node from now on. A page that is merged takes its frame along, for all its
 * sharers; where that is filed follows at the next visit of one of them. LKSM_NO_MEMORY: no page has moved.
 */
int lksm_process_move(struct mm_slot *process, uint64_t start, uint64_t stop, uint32_t node);
/* Unmerges the process and has it compared with those of that domain from now on. LKSM_NO_MEMORY: it has not moved. */
int lksm_process_set_domain(struct mm_slot *process, uint32_t domain);
/* Mergeable: clears the opt-out. Not: opts out, and what is merged is private at once. */
int lksm_process_advise(struct mm_slot *process, uint64_t start, uint64_t stop, bool is_mergeable);
/* Makes every page mergeable that is neither excluded nor opted out. Returns whether any page is. */
bool lksm_process_join(struct mm_slot *process);
void lksm_process_register(struct mm_slot *process);
void lksm_process_status(const struct mm_slot *process, struct lksm_status *status_ret);

/* The queue of processes to scan. A process that is queued already only changes class. */
void lksm_enqueue(struct mm_slot *process, bool is_frozen);
void lksm_dequeue(struct mm_slot *process);
/* It will be scanned before all others that wait. What is being scanned or is not queued stays where it is. */
void lksm_move_to_front(struct mm_slot *process);
/* It waits for a scan in its own right, not only because it froze. */
void lksm_clear_scanned(struct mm_slot *process);
/* When the process under the cursor is done, queue it once more as frozen. */
void lksm_requeue_frozen(struct mm_slot *process, bool is_wanted);
/*
 * A full or partial scan has been prepared: it starts with a new unstable tree. A process that an earlier
 * one has left half scanned is finished first, in the old tree; @now, the caller's clock, is when that goes on.
 */
void lksm_begin_round(struct engine *engine, uint64_t now);
/*
 * Visits up to @nr_pages pages of the queue. @now is the caller's clock. Ends early when the queue is
 * exhausted or memory is: LKSM_NO_MEMORY only if no page was visited; the cursor stays on that page. With
 * gate_first it also ends where the queue ends, though processes may wait in front of those it has scanned.
 */
int lksm_scan(struct engine *engine, uint64_t nr_pages, uint64_t now, uint64_t *nr_scanned_ret);

/*
 * Other threads may help those who call lksm_scan(), with compares and hashes of the pages that it comes to. That changes
 * no result and no counter. At most so many call lksm_help() between lksm_begin_help() and lksm_end_help(), and come back
 * soon after that; nothing else may be asked of the engine meanwhile but scans.
 */
void lksm_begin_help(struct engine *engine, uint32_t nr_helpers);
void lksm_help(struct engine *engine);
void lksm_end_help(struct engine *engine);
/* Pages that there was something to help with, so far; one that is hashed and then compared counts twice. */
uint64_t lksm_nr_asked(const struct engine *engine);
/* Pages of the processes that wait which have not been visited since, counted to @most at most. */
uint64_t lksm_nr_waiting(const struct engine *engine, uint64_t most);
/* Is a process half scanned? Else the cursor is at the head, between two walks over the queue. */
bool lksm_is_walking(const struct engine *engine);

/*
 * Call it at the end of a scan. Prunes the chains whose delay is over: if one has a single frame left, that is no
 * dup any more, and the chain is gone. Searches prune the chains they meet too. Needs no memory.
 */
void lksm_prune_chains(struct engine *engine, uint64_t now);
/*
 * Forgets all frames that lie on the memory node, in every domain: their pages are private, and what is counted of
 * them changes at once. Needs no memory and never fails.
 */
int lksm_offline(struct engine *engine, uint32_t node);
/* Does any process wait to be scanned? */
bool lksm_has_queue(const struct engine *engine);
/* The process that is queued behind @process, or first if that is NULL; NULL behind the last one. */
struct mm_slot *lksm_next_queued(const struct engine *engine, const struct mm_slot *process);
/* Forgets every item, frame, page on the zero frame and queued process. Needs no memory and never fails. */
void lksm_unmerge(struct engine *engine);

/* @domain: the counters of that domain only, but for those of rounds and the queue's; or -1 for all. */
void lksm_counters(const struct engine *engine, int64_t domain, struct lksm_counters *counters_ret);
/* One entry a page: frame id, or enum lksm_entry. */
void lksm_page_table(const struct mm_slot *process, int64_t *entries_ret);
/* @across_domains: may tell that a page which is not merged has a twin in another domain. */
int lksm_explain(struct mm_slot *process, uint64_t page, bool across_domains,
		 struct lksm_explanation *explanation_ret);
/* Number of merged contents with at least @min_pages pages. */
uint64_t lksm_nr_groups(struct engine *engine, int64_t domain, uint64_t min_pages);
/*
 * Writes as many as lksm_nr_groups() says, never more than `pages_shared`, and returns how many these are. Digests cost
 * reading the page, so they are optional.
 */
uint64_t lksm_groups(struct engine *engine, int64_t domain, uint64_t min_pages, bool with_digests,
		     struct lksm_group *groups_ret);
/*
 * Where pages with these bytes are filed in a domain: the frame that they are merged into, one of them if the limit has
 * split it; LKSM_ENTRY_ZERO; LKSM_ENTRY_PRIVATE if it is one page without a twin; else LKSM_ENTRY_ABSENT, which says
 * nothing of pages that wait or were never visited.
 */
int64_t lksm_find(struct engine *engine, uint32_t domain, const uint8_t *bytes);
/* The digest of one page: its hash under the digest secret. LKSM_INVALID if it is absent. */
int lksm_page_digest(struct mm_slot *process, uint64_t page, uint64_t *digest_ret);
/* @matrix_ret: nr_processes squared, in order of creation. LKSM_NO_MEMORY if there is no room to count. */
int lksm_sharing_matrix(struct engine *engine, int64_t *matrix_ret);
/*
 * Bytes reserved, by enum lksm_purpose. Of one domain, or -1 for all: then with what belongs to no domain, such as the
 * engine itself and what is spare.
 */
void lksm_memory(const struct engine *engine, int64_t domain, uint64_t *bytes_ret);
/* Walks everything and changes nothing. Writes a line for each fault and returns their number. */
uint64_t lksm_check(struct engine *engine, char *text, size_t size);

/*
 * types.h - START HERE: every internal struct of the core, every field in a phrase, no functions.
 *
 * page          page_size bytes at one address of one process
 * region        a run of pages of one process, backed by one array
 * mm_slot       what the engine remembers about one process: its pages and its recent merges
 * rmap_item     our note about one visited page: key, checksum, state, where it is linked
 * frame         the bytes that stand for all pages merged into one stable node
 * zero frame    stands for pages that were all zeros at their visit; it has no item, node or bytes
 * stable node   one merged content: its frame and the list of pages equal to it
 * chain, dup    several frames of one content, because no frame may have more than `max_page_sharing`
 *               sharers
 * key           64 bits taken from as few bytes of a page as tell it from the others; may say
 *               "different", never "equal"
 * round         one prepared scan, full or partial
 * errand        compares and hashes of pages that are visited soon, for whichever thread has time
 * filter        at which offsets pages of regions with one key ever merged; when it is mature, scans leave
 *               out the others
 *
 *   engine -> mm_slot -> region -> rmap_block -> rmap_item --(UNSTABLE)--> index.unstable
 *        \                                             \---(STABLE)----> stable_node's list
 *         -> index (one per domain) -> trees (for each memory node) -> stable forest -> stable_node --> frame
 *
 * Items and nodes live in pools and are named by 31-bit references: half the size of a pointer, which
 * is what keeps a tracked page below 64 bytes. Reference 0 means none.
 */
#ifndef TYPES_H
#define TYPES_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct engine;
struct mm_slot;
#include "lksm.h"

#define LINE_SIZE 64	/* of the processor's caches, in bytes */

/* --- memory and pools (arena.c, pool.c) ------------------------------------------------------- */

#define ARENA_UNIT ((uint64_t)1 << 12)
#define ARENA_MAX_BLOCK (4 * ARENA_UNIT)
#define ARENA_HUGE ((uint64_t)1 << 21)	/* a huge page */

struct slab;

/* Blocks of one size. */
struct arena {
	struct memory *memory;		/* where what is used and spare is booked */
	enum lksm_purpose purpose;	/* blocks in use are booked under */
	uint64_t block_size;		/* 0: not in use */
	uint64_t nr_bytes;		/* in blocks in use */
	struct slab *slabs;		/* those that have free blocks */
	struct slab **by_address;	/* all of them */
	uint32_t nr_slabs;
	uint32_t capacity;		/* room in @by_address */
};

/* Every byte the engine has, by purpose, and the way to make an allocation fail. */
struct memory {
	uint64_t reserved[LKSM_NR_PURPOSES];	/* bytes now held */
	uint64_t nr_allocations;		/* asked for so far, failures included */
	uint64_t fail_at;			/* for tests: this one fails (counted from 1); 0 = none */
	uint64_t fail_count;			/* for tests: and how many after it fail too */
	struct arena frames;			/* copies of pages of one size, once there are any */
};

#define POOL_CHUNK_SHIFT 8
#define POOL_CHUNK_OBJECTS (1u << POOL_CHUNK_SHIFT)
#define POOL_MAX_CHUNKS (1u << (31 - POOL_CHUNK_SHIFT))

/* Objects of one size in chunks, each with a header; a reference is (chunk id << POOL_CHUNK_SHIFT) + place. */
struct pool {
	struct memory *memory;		/* where chunks come from */
	enum lksm_purpose purpose;	/* what they are booked under */
	uint32_t object_size;		/* bytes, a multiple of 8 */
	uint32_t header_size;		/* bytes of each chunk's header */
	struct arena arena;		/* whole chunks come from here, if it suits their size */
	uint8_t **chunks;		/* by chunk id; id 0 is never used */
	uint8_t *headers;		/* by chunk id */
	uint32_t *free_ids;		/* stack of chunk ids given back */
	uint32_t nr_free_ids;		/* its height */
	uint32_t nr_chunks;		/* ids ever given out, and one */
	uint32_t capacity;		/* room in the three arrays */
	uint32_t free_object;		/* first free object; each begins with the next one's reference */
};

/* --- trees (rbtree.c, forest.c) -------------------------------------------------------------- */

/* A place in a red-black tree. Must be the first member of whatever is filed. */
struct rb_node {
	uint32_t parent : 31;		/* 0 at the root */
	uint32_t is_red : 1;
	uint32_t child[2];		/* smaller, greater */
};

#define KEY_OFFSET 16	/* where an object that is filed in a forest has its 64-bit key */

/* An array of red-black roots chosen by the key's high bits, each ordered by (key, bytes). */
struct forest {
	const struct pool *pool;	/* of the objects filed here */
	const uint8_t *(*bytes_of)(const struct pool *pool, uint32_t ref);	/* an object's page */
	struct memory *memory;		/* where the roots come from */
	uint32_t *roots;		/* 1 << root_bits of them; @first_root as long as one is enough, so a forest stays where it is */
	uint32_t root_bits;		/* 0: one tree, as in the kernel */
	uint32_t first_root;
	uint32_t *next_roots;		/* while it grows: four times as many; NULL otherwise */
	uint64_t nr_split;		/* while it grows: roots whose objects have gone over to @next_roots, from the first on */
	uint64_t nr_entries;		/* objects filed */
};

/* Where a search ended: what forest_insert() needs. */
struct place {
	uint32_t parent;		/* the last object met, 0 in an empty tree */
	uint32_t side;			/* on which side of it */
};

/* A set of keys: the sample keys whose class has been deepened. Open addressing. */
struct keyset {
	struct memory *memory;
	uint64_t *keys;			/* 0 = empty place */
	uint64_t nr_places;		/* 0 or a power of two */
	uint64_t nr_keys;		/* non-zero keys held */
	bool has_zero;			/* key 0 is in the set */
};

/* What telling pages apart has cost so far. */
struct work {
	uint64_t bytes_compared;	/* looked at by compares of two pages */
	uint64_t bytes_hashed;		/* handed to the hash for keys and checksums */
};

/* Pages that are read soon: whoever reads others before them asks for them. */
struct soon {
	const uint8_t *pages[2];	/* NULL: none, or no second one */
	uint64_t asked;			/* bytes of each that have been asked for */
	uint64_t left;			/* bytes that a compare of equal pages leaves to be asked for when it is over */
};

/* What is known of the bytes of a page before its visit. */
struct foreseen {
	const uint8_t *bytes;		/* the page */
	const uint8_t *other;		/* bytes that it is compared with */
	uint64_t hash;			/* of the whole page, if @has_hash */
	uint32_t nr_compared;		/* bytes that the compare looked at, if @is_compared */
	int8_t order;			/* what it said */
	bool is_hash;			/* the hash is wanted, not the compare */
	bool has_hash;
	bool is_compared;
	bool is_frame;			/* @other may be freed in this scan */
	uint32_t ref;			/* @other is filed as */
	const struct forest *forest;	/* here, if that is a stable one; else NULL */
	uint64_t nr_gone;		/* of the engine, when that was found out */
};

#define GROUP_PAGES 8		/* neighbours that an errand is for */

/* How far an errand is; helpers.h has the ways from one to the next. */
enum errand_state {
	ERRAND_NONE,		/* nobody was sent, or the results have been noted */
	ERRAND_OPEN,		/* anybody may take it */
	ERRAND_TAKEN,		/* a helper is at it */
	ERRAND_DONE		/* the results are written */
};

/* What others are sent for: hashes and compares of pages of one group. Few lines, for each goes there and back. */
struct errand {
	_Alignas(LINE_SIZE) _Atomic uint8_t state;	/* enum errand_state */
	uint8_t pages;			/* by page: a bit if something is wanted */
	uint8_t hashes;			/* a bit if it is the hash */
	_Alignas(LINE_SIZE) const uint8_t *bytes[GROUP_PAGES];
	const uint8_t *others[GROUP_PAGES];
	union {
		uint64_t hash;
		struct {
			uint32_t nr_compared;
			int8_t order;
		};
	} results[GROUP_PAGES];
};

/* How pages are told apart; the same for all pages of an engine. */
#define SAMPLE_LINES 2		/* each one is a miss; these two whole tell more pages apart than three halves do */
#define SAMPLE_BYTES 64		/* of each line; where pages are not aligned they are of two */
#define SAMPLE_SIZE (SAMPLE_LINES * SAMPLE_BYTES)
struct page_rules {
	uint64_t page_size;		/* bytes */
	uint32_t page_shift;		/* its logarithm */
	bool is_sample_whole;		/* pages are so small that a sample is the whole page */
	uint32_t lines[SAMPLE_LINES];	/* byte offsets of the sampled cache lines, ascending */
	uint64_t zero_sample;		/* key that the sampled lines of a page of zeros give */
	uint64_t zero_hash;		/* key that the whole of it gives, if @has_zero_hash */
	bool has_zero_hash;		/* pages are not larger than is usual */
	lksm_hash hash;			/* lent by the caller */
	const void *secret;		/* for keys and checksums */
	const void *digest_secret;	/* for digests */
	size_t secret_size;
	struct work *work;		/* booked here: of the domain whose page is visited */
	struct soon *soon;		/* of the thread that scans */
};

/* One look at a page: its bytes and what has been computed from them so far. */
struct look {
	const uint8_t *bytes;
	uint64_t sample;		/* key taken from the sampled lines */
	uint64_t hash;			/* key taken from the whole page */
	uint64_t key;			/* the one it is filed under now */
	const struct foreseen *foreseen;	/* what was found out about the bytes before; NULL: nothing */
	bool has_hash;			/* @hash is valid */
	bool is_deep;			/* @key is final: its class has been deepened, or cannot be */
};

/* --- what is filed --------------------------------------------------------------------------- */

enum item_state {
	ITEM_NONE,		/* this page has no item */
	ITEM_VOLATILE,		/* tracked, but in no tree at the moment */
	ITEM_UNSTABLE,		/* counted as unshared; in the unstable tree if stamped with this round */
	ITEM_STABLE		/* in the list of a stable node */
};

#define ROUND_BITS 40	/* a round every millisecond: 34 years */
#define SMART_SCAN_MAX_SKIPS 8	/* visits in a row that smart scan leaves out */

/* 32 bytes a page, and all of it earns its place. */
struct rmap_item {
	union {
		struct rb_node rb;		/* UNSTABLE: place in the unstable tree */
		struct {			/* STABLE: place in its node's list of sharers */
			uint32_t next;		/* towards older sharers */
			uint32_t previous;	/* towards newer ones; 0 for the first */
			uint32_t node;		/* the stable node */
		} sharer;
	};
	uint32_t checksum;		/* of the last gated visit, bit 0 clear; 0 when never computed */
	uint64_t key;			/* it was last filed under */
	uint64_t round : ROUND_BITS;	/* UNSTABLE: the round it was filed in */
	/* Bytes of their own, so that who writes one and then reads @round need not wait for it. */
	uint8_t age;			/* smart scan: visits while not merged, as far as 255 */
	uint8_t remaining_skips;	/* smart scan: visits still to be left out */
	uint8_t state : 2;		/* enum item_state */
	uint8_t bypasses_gate : 1;	/* this visit skips the checksum gate: its process is frozen */
	uint8_t is_private : 1;		/* STABLE: written or unmerged since its last visit */
	uint8_t is_alias : 1;		/* VOLATILE because another item has the same physical page */
	uint8_t has_key : 1;		/* @key still is this page's: its bytes hold still */
	uint8_t is_key_deep : 1;	/* @key was taken from the whole page */
	uint8_t is_settled : 1;		/* its bytes hold still. STABLE, not private: stays so; UNSTABLE: kept by new rounds */
};

/* One page that is being visited. */
struct visit {
	struct index *index;		/* of its domain */
	struct region *region;
	uint64_t page;			/* in the region */
	uint32_t ref;			/* of its item */
	uint32_t tree;			/* in which it is filed */
	struct rmap_item *item;
	const uint8_t *bytes;
	const struct foreseen *foreseen;	/* what was found out before; NULL: nothing */
};

/* The items of up to 256 neighbouring pages of a region; a chunk of the item pool. */
struct rmap_block {
	struct region *region;
	uint32_t first_page;		/* in the region */
	uint32_t nr_items;		/* that exist: state is not NONE */
};

enum node_kind {
	NODE_PLAIN,		/* the only frame of its content, filed in the stable tree */
	NODE_DUP,		/* one of several: in the ring of their chain */
	NODE_CHAIN,		/* no frame: filed in the stable tree in place of its dups */
	NODE_MIGRATING		/* its frame was moved to another memory node: in no tree, on the migrate list */
};

/*
 * One frame, or a chain of them. A chain outlives all dups but one until it is met or pruned: then that
 * one takes its place. Going round from the first dup, those that have room come before full ones.
 */
struct stable_node {
	union {
		struct rb_node rb;		/* PLAIN, CHAIN: place in the stable tree */
		struct {			/* DUP: place in the ring of its chain */
			uint32_t next;		/* itself if there is no other */
			uint32_t previous;
			uint32_t chain;
		} dup;
		struct {			/* MIGRATING: place on the migrate list of its index */
			uint32_t next;
			uint32_t previous;
		} migrating;
	};
	union {
		uint32_t sharers;		/* PLAIN, DUP: newest rmap_item */
		uint32_t first_dup;		/* CHAIN: has room if any dup has */
	};
	uint64_t key;				/* PLAIN, CHAIN: it is filed under */
	const uint8_t *bytes;			/* the frame; CHAIN: the copy its dups share, NULL if it has none */
	union {					/* both begin alike, so that either tells the kind */
		struct {
			uint64_t kind : 2;	/* enum node_kind */
			uint64_t is_owned : 1;	/* the frame is our copy, else borrowed from an immutable sharer */
			uint64_t tree : 8;	/* of the index: where it is filed; DUP: where its chain is */
			uint64_t memory_node : 8;	/* where the frame lies */
			uint64_t serial : 45;	/* of the frames of its domain, never used again */
		};
		struct {
			uint64_t chain_kind : 2;
			uint64_t has_copy : 1;	/* @bytes is not NULL */
			uint64_t chain_tree : 8;	/* of the index: where it is filed */
			uint64_t : 8;
			uint64_t pruned : 45;	/* when it was last pruned, in the caller's clock; at most MAX_PRUNED */
		};
	};
	union {
		uint32_t nr_sharers;		/* PLAIN, DUP */
		struct {			/* CHAIN: place among those of its index */
			uint32_t next;		/* pruned later */
			uint32_t previous;
		} queue;
	};
};

#define MAX_PRUNED (((uint64_t)1 << 45) - 1)	/* milliseconds: a thousand years */

/* Which item first had the page at an address, for pages that several processes map. */
struct physical_map {
	struct memory *memory;
	const struct pool *items;	/* to find an item's page */
	const uint8_t *(*bytes_of)(const struct pool *pool, uint32_t ref);
	uint32_t *refs;			/* open addressing by address; 0 = empty place */
	uint64_t nr_places;		/* 0 or a power of two */
	uint64_t nr_items;
};

/* How many pages at one address are on the zero frame. */
struct zero_address {
	const uint8_t *bytes;		/* NULL = empty place */
	uint64_t nr_pages;
};

/* The addresses of pages on the zero frame, for pages that several processes map. */
struct zero_map {
	struct memory *memory;
	struct zero_address *addresses;	/* open addressing */
	uint64_t nr_places;		/* 0 or a power of two */
	uint64_t nr_addresses;
};

enum filter_role {
	FILTER_DATA,		/* a file's data */
	FILTER_BSS		/* the zeroed memory behind it */
};

/* At which offsets pages of regions with one key ever merged. */
struct filter {
	struct filter *next;		/* in its chain of the filter map */
	uint64_t key;			/* given by the caller */
	enum filter_role role;		/* regions of one key differ by role too */
	uint32_t nr_conflicts;		/* walks over regions of other sizes; at the second one it is given up */
	uint64_t nr_regions;		/* that have it */
	uint64_t birth;			/* rounds prepared when it was made */
	uint64_t nr_merges;		/* of pages of its regions */
	uint64_t nr_bits;		/* set; 0: nothing is known, so nothing is left out */
	uint64_t *words;		/* bit i: a page at offset i has merged */
	uint64_t nr_words;		/* that exist */
	uint64_t nr_wanted;		/* words that the largest region takes */
	uint64_t first_word;		/* the only one, until a page behind it merges */
};

/* The filters of a domain by key and role. */
struct filter_map {
	struct memory *memory;
	struct filter **chains;
	uint64_t nr_chains;		/* 0 or a power of two */
	uint64_t nr_filters;
};

/* Merges of pages in regions that have a filter, so far, by what they are. */
struct shares {
	uint64_t data;
	uint64_t bss;
	uint64_t conflicted;		/* their filter was given up */
};

/* The trees of one memory node; of all of them, if pages merge across nodes. */
struct trees {
	struct forest stable;		/* merged contents; their bytes cannot change */
	struct forest unstable;		/* pages of this round without a twin */
	struct forest kept;		/* the same, and of earlier rounds: pages whose bytes hold still */
	uint64_t nr_others;		/* scratch: pages of a new round that will be filed in @unstable */
	uint64_t nr_still;		/* scratch: and in @kept */
};

/* What happened so far. */
struct tally {
	uint64_t merged;		/* pages that joined a frame with a sharer */
	uint64_t broken;		/* pages that left a frame that kept one */
	uint64_t pages_scanned;		/* visits */
	uint64_t pages_skipped;		/* visits that smart scan left out */
	struct shares shares;
	struct work work;		/* what the visits cost */
};

/* Everything that pages of one domain are compared with. */
struct index {
	struct index *next;		/* of the engine */
	struct engine *engine;
	uint32_t domain;
	struct trees *trees;		/* by memory node; the first one for all if pages merge across nodes */
	uint32_t first_migrating;	/* stable nodes whose frame was moved, until they are filed again */
	struct keyset deepened;		/* sample keys that two different pages had */
	uint32_t extent_root;		/* where its regions lie: extents by address */
	struct physical_map physical;	/* pages that lie at one address */
	struct zero_map zero;		/* of these, the ones on the zero frame */
	struct filter_map filters;	/* what was learned of regions that have a key */
	uint64_t nr_slots;		/* processes of the domain */
	uint64_t rmap_items;		/* items in existence */
	uint64_t pages_shared;		/* stable nodes with a sharer, which is all of them */
	uint64_t pages_sharing;		/* sharers beyond the first of each node */
	uint64_t pages_unshared;	/* UNSTABLE items, of whatever round */
	uint64_t nr_chains;		/* contents that have a chain */
	uint64_t nr_dups;		/* nodes of such contents */
	uint32_t first_chain;		/* the one that was pruned longest ago */
	uint32_t last_chain;
	uint64_t zero_pages;		/* pages on the zero frame */
	uint64_t zero_saved;		/* of these, different ones: pages at one address are one */
	uint64_t next_serial;		/* of its next frame */
	struct tally tally;
};

/* --- processes ------------------------------------------------------------------------------- */

/* A page that a forked process no longer shares with its family's array. */
struct page_copy {
	uint8_t *bytes;
	uint64_t nr_users;		/* regions that map it */
};

enum page_flag {
	PAGE_MERGEABLE = 1,		/* advised, or joined by the crawler */
	PAGE_OPTED_OUT = 2,		/* advised unmergeable: joining respects it */
	PAGE_UNMAPPED = 4,		/* gone */
	PAGE_ZERO = 8,			/* on the zero frame; zero.c keeps it */
};

/* Bytes that regions of one domain lie over. Those over the same bytes have the same extent. */
struct extent {
	struct rb_node rb;		/* place among the extents of the domain, by address */
	uint32_t ref;			/* its own reference */
	uint64_t start;			/* address of the first byte */
	uint64_t end;			/* address after the last byte */
	struct region *regions;		/* the regions in it */
};

struct region {
	struct mm_slot *slot;
	uint64_t address;		/* of the first page, in the process */
	uint8_t *pages;			/* the owner's array */
	uint64_t nr_array_pages;	/* pages in it */
	const int64_t *rows;		/* which array page each page is; NULL: itself */
	struct page_copy **copies;	/* by page: what it has instead of the array's; NULL: none */
	uint8_t *flags;			/* by page: enum page_flag */
	uint32_t *blocks;		/* by 256 pages: chunk of items, 0 if none was visited */
	uint8_t *nodes;			/* by page: its memory node; NULL: @node is every page's */
	uint64_t nr_pages;
	uint64_t nr_mergeable;		/* pages that a scan would visit */
	uint64_t nr_present;		/* pages that are not unmapped */
	uint64_t nr_items;		/* items in existence */
	uint64_t nr_zero;		/* pages on the zero frame */
	uint64_t first_page;		/* its number in the process */
	uint64_t position;		/* in slot->regions */
	struct filter *filter;		/* that of its key; NULL: it is scanned fully */
	struct extent *extent;		/* where its array lies; NULL for a region that borrows it */
	struct region *next_in_extent;
	struct region *previous_in_extent;
	uint32_t page_shift;
	uint8_t node;			/* memory node of its pages, unless @nodes says otherwise */
	bool is_immutable;		/* the bytes never change */
	bool is_tracked;		/* the bytes change only by lksm_process_write(), or lksm_process_touch() tells */
	bool is_excluded;		/* never merged */
	bool is_forked;			/* the array is the parent's: the first write copies */
	bool is_aliased;		/* some page may be mapped elsewhere too */
};

struct mm_slot {
	struct engine *engine;
	struct index *index;		/* of its domain */
	struct mm_slot *next;		/* in order of creation */
	struct mm_slot *previous;
	struct mm_slot *queue_next;	/* in the queue, if pending */
	struct mm_slot *queue_previous;
	struct mm_slot *family_next;	/* ring of processes related by fork; itself if none */
	struct region **regions;	/* in address order */
	uint64_t nr_regions;
	uint64_t nr_pages;		/* of all regions */
	uint64_t end;			/* no region reaches beyond this page of the address space */
	uint64_t rmap_items;		/* items in existence */
	uint64_t nr_stable;		/* of these, merged */
	uint64_t nr_unstable;		/* of these, counted as unshared */
	uint64_t window[LKSM_MAX_WINDOW];	/* merges in each of the last completed scans; 0 beyond the engine's window */
	uint32_t window_index;		/* which is overwritten next */
	uint64_t nr_merged;		/* sum of the window: the score */
	uint64_t merged;		/* merges since its last completed scan */
	uint64_t broken;		/* breaks since then */
	uint64_t nr_scans;		/* pages visited since it was queued */
	uint64_t started;		/* when its scan began, in the caller's clock */
	uint64_t elapsed;		/* what the last completed scan took */
	uint64_t completion;		/* which of the engine's completions that was; 0: none yet */
	uint64_t position;		/* scratch: place in the order of creation */
	uint64_t mark;			/* scratch: last group that counted it */
	enum lksm_pending pending;	/* queued as what */
	bool is_registered;		/* known to the scanner */
	bool is_newcomer;		/* not yet scanned once */
	bool is_scanned;		/* its last scan was completed */
	bool requeue_frozen;		/* queue once more as frozen when done */
	bool is_leaving;		/* exiting: do not make it a lender */
};

#define AHEAD_PAGES 128		/* places, a power of two */
#define AHEAD_GROUPS (AHEAD_PAGES / GROUP_PAGES)
#define NR_ERRANDS (2 * AHEAD_GROUPS)	/* a group has two at most: hashes first, then all that will be read */

/* What is known of a page that is visited soon. */
struct ahead_page {
	const uint8_t *bytes;		/* the page; NULL: its visit needs none of this */
	uint64_t sample;		/* unless @is_kept, once @has_key */
	uint64_t key;			/* it will be filed under, it seems: the one it has kept, its sample or its hash */
	bool is_merged;			/* it was, and will be compared with its frame */
	bool is_kept;			/* @key is kept */
	bool has_key;			/* @key is valid */
	bool wants_hash;		/* its sample has been deepened: it will be filed under its hash */
	bool is_read;			/* the scanning thread will read it in full, it seems */
	bool meets_gate;		/* its checksum will be asked for, it seems */
};

struct ahead {
	const struct region *region;	/* the pages are of; NULL: nothing is known */
	const struct trees *trees;	/* these pages are searched for in */
	const struct keyset *deepened;	/* of their domain */
	const struct filter *filter;	/* that leaves pages out; NULL: none are */
	uint64_t next;			/* the page that is expected to be visited next */
	uint64_t first;			/* the page that it began with */
	uint64_t asked;			/* pages up to this one have been asked for in full, if that is worth it */
	uint64_t lead;			/* pages that the steps before an errand and behind it are farther ahead */
	uint64_t mask;			/* places in use, less one */
	uint64_t nr_wanted;		/* places of pages whose visit needs something */
	/* Where helpers are there, by group, by page: a bit for what has to be done, and then for what others do not do. */
	uint8_t to_hash[AHEAD_GROUPS];
	uint8_t to_read[AHEAD_GROUPS];	/* in full, when it is visited */
	struct ahead_page pages[AHEAD_PAGES];	/* by page number */
	struct foreseen foreseen[AHEAD_PAGES];	/* the same */
};

/* Errands for other threads. */
struct helpers {
	_Atomic uint32_t nr_helpers;	/* may come, and stay; 0: they are told to go */
	_Atomic uint64_t nr_sent;	/* errands so far */
	_Atomic uint8_t queue[NR_ERRANDS];	/* by number: which errand it is */
	uint64_t nr_asked;		/* pages that others could have been sent for, so far */
	_Alignas(LINE_SIZE) _Atomic uint64_t nr_ended;	/* errands that were run, or taken back */
	struct errand errands[NR_ERRANDS];	/* for the hashes of each group, then for what will be read of each */
};

/* --- the engine ------------------------------------------------------------------------------ */

struct cursor {
	struct mm_slot *slot;		/* being scanned; NULL = head: none */
	struct region *region;		/* of it; NULL = past its last one */
	uint64_t page;			/* in the region: next to look at */
	bool has_met_filter;		/* of the region, and looked at its size */
	bool is_learning;		/* that filter had no bits then: the walk leaves nothing of the region out */
};

struct engine {
	struct memory memory;
	struct page_rules rules;
	struct pool items;		/* rmap_items, in rmap_blocks */
	struct pool nodes;		/* stable nodes */
	struct pool extents;		/* extents */
	struct index *indexes;		/* one per domain in use */
	struct mm_slot *slots;		/* oldest */
	struct mm_slot *last_slot;	/* newest */
	struct mm_slot *queue;		/* first to be scanned */
	struct mm_slot *queue_last;
	struct cursor cursor;
	struct ahead ahead;		/* of this batch */
	struct soon soon;		/* what the next visits compare */
	struct helpers helpers;		/* of the thread that scans */
	uint32_t nr_nodes;		/* memory nodes there are */
	bool merge_across_nodes;	/* pages of different memory nodes are compared */
	bool is_secure;			/* frames are copies, never borrowed */
	uint64_t initial_rounds;	/* the gate is closed below this round */
	uint64_t max_page_sharing;	/* sharers a frame may have */
	uint32_t merge_window;		/* scans in the window of a process */
	bool gate_first;		/* the gate comes before the stable tree, in every round */
	bool smart_scan;		/* pages that do not merge are visited less often */
	uint32_t prune_millisecs;	/* a chain is left alone for so long after it was made or pruned */
	bool use_zero_pages;		/* pages of zeros go to the zero frame, from their next visit on */
	uint64_t filter_maturity;	/* a filter only learns until it is so many rounds old */
	bool is_unfiltered;		/* filters leave nothing out */
	uint64_t crawl_round;		/* scans prepared so far */
	uint64_t scan_round;		/* generation of the unstable trees; 0 after unmerge */
	struct tally gone;		/* of domains that no process is left in */
	struct tally round_start;	/* of all domains, when this round began */
	uint64_t nr_gone;		/* stable nodes, or frames of them, that were freed: another may be in their place */
	uint64_t nr_completions;	/* scans of processes that were completed */
	uint64_t nr_gated;		/* in this round */
	uint64_t nr_begun_slots;	/* in this round */
	uint64_t nr_scanned_slots;	/* in this round */
	uint64_t now;			/* the caller's clock when it was last told */
	void (*before_merge)(void *);	/* for tests: called between search and merge */
	void *before_merge_data;
	char error[160];		/* the last error, in one line */
};

_Static_assert(LKSM_MAX_NODES == 1 << 8, "a stable node has 8 bits for its memory node");
_Static_assert(NR_ERRANDS <= 256 && GROUP_PAGES <= 8, "a byte names an errand, or the pages of a group");
_Static_assert(sizeof(struct engine) % LINE_SIZE == 0, "memory_alloc_first() wants whole lines");
_Static_assert(sizeof(struct rb_node) == 12, "a place in a tree is three references");
_Static_assert(sizeof(struct rmap_item) == 32, "half of the 64 bytes a page may cost");
_Static_assert(sizeof(struct ahead_page) == 32, "two in a cache line");
_Static_assert(sizeof(struct errand) == 4 * LINE_SIZE, "no two threads write to one line, but in turns");
_Static_assert(sizeof(struct rmap_block) == 16, "a block's header");
_Static_assert(sizeof(struct stable_node) == 48, "with two items a node: 56 bytes a page");
_Static_assert(offsetof(struct rmap_item, key) == KEY_OFFSET, "forests look here");
_Static_assert(offsetof(struct stable_node, key) == KEY_OFFSET, "forests look here");

#endif

/*
 * lksm.c - the public functions: validate, call down, set the error text.
 *
 * Bad input ends here; below, it is our bug and asserted.
 */
#include "check.h"
#include "fork.h"
#include "helpers.h"
#include "merge.h"
#include "migrate.h"
#include "mm_slot.h"
#include "report.h"
#include "scan.h"
#include "stable_tree.h"
#include "touch.h"
#include "unstable_tree.h"
#include "zero.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define MAX_REGION_PAGES ((uint64_t)1 << 31)

__attribute__((format(printf, 3, 4))) static int fail(struct engine *engine, int error, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(engine->error, sizeof(engine->error), format, arguments);
	va_end(arguments);
	return error;
}

/* --- engine ---------------------------------------------------------------------------------- */

int lksm_engine_create(const struct lksm_options *options, struct engine **engine_ret)
{
	uint64_t page_size = options->page_size;
	if (page_size < LINE_SIZE || page_size > (uint64_t)1 << 30 || page_size & (page_size - 1) ||
	    !options->nr_nodes || options->nr_nodes > LKSM_MAX_NODES || options->max_page_sharing < 2 ||
	    !options->merge_window || options->merge_window > LKSM_MAX_WINDOW ||
	    !options->hash)
		return LKSM_INVALID;
	struct engine *engine = memory_alloc_first(sizeof(*engine));
	if (!engine)
		return LKSM_NO_MEMORY;
	engine->memory.reserved[LKSM_FOR_ENGINE] = sizeof(*engine);
	page_rules_init(&engine->rules, options, &engine->gone.work, &engine->soon);
	pool_init(&engine->items, &engine->memory, LKSM_FOR_ITEMS, sizeof(struct rmap_item),
		  sizeof(struct rmap_block));
	pool_init(&engine->nodes, &engine->memory, LKSM_FOR_NODES, sizeof(struct stable_node), 0);
	pool_init(&engine->extents, &engine->memory, LKSM_FOR_PROCESSES, sizeof(struct extent), 0);
	engine->nr_nodes = options->nr_nodes;
	engine->merge_across_nodes = true;
	engine->is_secure = options->is_secure;
	engine->initial_rounds = options->initial_rounds;
	engine->max_page_sharing = options->max_page_sharing;
	engine->merge_window = options->merge_window;
	engine->gate_first = options->gate_first;
	engine->filter_maturity = options->filter_maturity;
	*engine_ret = engine;
	return LKSM_OK;
}

void lksm_engine_destroy(struct engine *engine)
{
	/*
	 * Nothing is unlinked: that would touch every item. The caller's arrays may be gone already, so nobody may ask
	 * where a page is.
	 */
	for (struct index *index = engine->indexes; index; index = index->next)
		stable_tree_free_copies(index);
	while (engine->slots) {
		mm_slot_free_items(engine->slots);
		mm_slot_destroy(engine->slots);
	}
	pool_deinit(&engine->items);
	pool_deinit(&engine->nodes);
	pool_deinit(&engine->extents);
	memory_free_first(engine);
}

const char *lksm_error_text(const struct engine *engine)
{
	return engine->error;
}

/* Some knobs must not change while any page is shared. */
static int check_nothing_shared(struct engine *engine, const char *knob)
{
	struct lksm_counters counters;
	report_counters(engine, -1, &counters);
	if (!counters.pages_shared)
		return LKSM_OK;
	return fail(engine, LKSM_BUSY, "%s cannot change while %" PRIu64 " pages are shared", knob,
		    counters.pages_shared);
}

int lksm_set_max_page_sharing(struct engine *engine, uint64_t max_page_sharing)
{
	if (max_page_sharing == engine->max_page_sharing)
		return LKSM_OK;
	if (max_page_sharing < 2)
		return fail(engine, LKSM_INVALID, "max_page_sharing is %" PRIu64 ", expected at least 2",
			    max_page_sharing);
	int error = check_nothing_shared(engine, "max_page_sharing");
	if (!error)
		engine->max_page_sharing = max_page_sharing;
	return error;
}

/* What a later visit of a page would do is another thing from now on. */
static void unkeep(struct engine *engine)
{
	for (struct index *index = engine->indexes; index; index = index->next)
		for (uint32_t tree = 0; tree < engine->nr_nodes; tree++)
			unstable_tree_unkeep(index, tree);
}

int lksm_set_merge_across_nodes(struct engine *engine, bool is_on)
{
	int error = is_on == engine->merge_across_nodes ? LKSM_OK : check_nothing_shared(engine, "merge_across_nodes");
	if (!error && is_on != engine->merge_across_nodes)
		unkeep(engine);
	if (!error)
		engine->merge_across_nodes = is_on;
	return error;
}

void lksm_set_smart_scan(struct engine *engine, bool is_on)
{
	if (is_on != engine->smart_scan)
		unkeep(engine);
	engine->smart_scan = is_on;
}

void lksm_set_prune_delay(struct engine *engine, uint32_t millisecs)
{
	engine->prune_millisecs = millisecs;
}

void lksm_set_use_zero_pages(struct engine *engine, bool is_on)
{
	if (is_on != engine->use_zero_pages)
		unkeep(engine);
	engine->use_zero_pages = is_on;
}

void lksm_set_unfiltered(struct engine *engine, bool is_on)
{
	engine->is_unfiltered = is_on;
}

/* --- processes ------------------------------------------------------------------------------- */

int lksm_process_create(struct engine *engine, uint32_t domain, struct mm_slot **process_ret)
{
	struct mm_slot *slot = mm_slot_create(engine, domain);
	if (!slot)
		return fail(engine, LKSM_NO_MEMORY, "no memory for a process");
	*process_ret = slot;
	return LKSM_OK;
}

int lksm_process_map(struct mm_slot *process, const struct lksm_region *region)
{
	struct engine *engine = process->engine;
	uint64_t page_size = engine->rules.page_size;

	if (!region->nr_pages || region->nr_pages >= MAX_REGION_PAGES)
		return fail(engine, LKSM_INVALID, "a region has %" PRIu64 " pages, expected 1 to %" PRIu64,
			    region->nr_pages, MAX_REGION_PAGES - 1);
	if (region->address % page_size || region->address / page_size + region->nr_pages > UINT64_MAX / page_size + 1)
		return fail(engine, LKSM_INVALID, "a region of %" PRIu64 " pages cannot be at %#" PRIx64,
			    region->nr_pages, region->address);
	const struct region *other = mm_slot_overlap(process, region->address, region->nr_pages);
	if (other)
		return fail(engine, LKSM_INVALID, "regions at %#" PRIx64 " and %#" PRIx64 " overlap", other->address,
			    region->address);
	if (!region->rows && region->nr_pages > region->nr_array_pages)
		return fail(engine, LKSM_INVALID, "a region of %" PRIu64 " pages is over an array of %" PRIu64,
			    region->nr_pages, region->nr_array_pages);
	if (region->node >= engine->nr_nodes)
		return fail(engine, LKSM_INVALID, "memory node %u, the engine has %u", region->node, engine->nr_nodes);
	for (uint64_t i = 0; region->rows && i < region->nr_pages; i++)
		if (region->rows[i] < -1 || region->rows[i] >= (int64_t)region->nr_array_pages)
			return fail(engine, LKSM_INVALID, "row %" PRId64 " is outside an array of %" PRIu64 " pages",
				    region->rows[i], region->nr_array_pages);
	int error = mm_slot_map(process, region);
	return error ? fail(engine, error, "no memory for a region of %" PRIu64 " pages", region->nr_pages) : LKSM_OK;
}

int lksm_process_fork(struct mm_slot *process, struct mm_slot **process_ret)
{
	struct mm_slot *child = fork_slot(process);
	if (!child)
		return fail(process->engine, LKSM_NO_MEMORY, "no memory for a forked process");
	if (process->is_registered)
		lksm_process_register(child);
	*process_ret = child;
	return LKSM_OK;
}

void lksm_process_destroy(struct mm_slot *process)
{
	process->is_leaving = true;
	scan_remove(process);
	forget_pages(process);
	mm_slot_destroy(process);
}

static int check_range(struct mm_slot *process, uint64_t start, uint64_t stop)
{
	if (start <= stop && stop <= process->nr_pages)
		return LKSM_OK;
	return fail(process->engine, LKSM_INVALID, "pages %" PRIu64 " to %" PRIu64 " are not within the %" PRIu64
		    " of the process", start, stop, process->nr_pages);
}

/* What is merged becomes private at once, its counters follow at the next visit; a zero page is none any more. */
static void make_private(struct region *region, uint64_t page)
{
	zero_remove(region, page);
	uint32_t ref = item_find(region, page);
	struct rmap_item *item = ref ? item_at(&region->slot->engine->items, ref) : NULL;
	if (item && item->state == ITEM_STABLE) {
		item->is_private = 1;
		item->is_settled = 0;
	}
}

int lksm_process_unmap(struct mm_slot *process, uint64_t start, uint64_t stop)
{
	int error = check_range(process, start, stop);
	for (uint64_t page = start; !error && page < stop; page++) {
		uint64_t place;
		struct region *region = mm_slot_region(process, page, &place);
		make_private(region, place);
		region_set_flags(region, place, PAGE_UNMAPPED);
	}
	return error;
}

int lksm_process_advise(struct mm_slot *process, uint64_t start, uint64_t stop, bool is_mergeable)
{
	int error = check_range(process, start, stop);
	for (uint64_t page = start; !error && page < stop; page++) {
		uint64_t place;
		struct region *region = mm_slot_region(process, page, &place);
		if (!page_is_present(region, place) || region->is_excluded)
			continue;
		if (!is_mergeable)
			make_private(region, place);
		uint8_t zero = region->flags[place] & PAGE_ZERO;
		region_set_flags(region, place, is_mergeable ? PAGE_MERGEABLE | zero : PAGE_OPTED_OUT);
	}
	return error;
}

int lksm_process_touch(struct mm_slot *process, uint64_t start, uint64_t stop)
{
	int error = check_range(process, start, stop);
	for (uint64_t page = start; !error && page < stop; page++) {
		uint64_t place;
		struct region *region = mm_slot_region(process, page, &place);
		touch_page(region, place);
	}
	return error;
}

int lksm_process_move(struct mm_slot *process, uint64_t start, uint64_t stop, uint32_t node)
{
	struct engine *engine = process->engine;
	int error = check_range(process, start, stop);
	if (error)
		return error;
	if (node >= engine->nr_nodes)
		return fail(engine, LKSM_INVALID, "memory node %u, the engine has %u", node, engine->nr_nodes);
	error = migrate_pages(process, start, stop, node);
	return error ? fail(engine, error, "no memory to note the nodes of %" PRIu64 " pages", stop - start) : LKSM_OK;
}

int lksm_process_set_domain(struct mm_slot *process, uint32_t domain)
{
	struct engine *engine = process->engine;
	if (domain == process->index->domain)
		return LKSM_OK;
	struct index *index = index_get(engine, domain);
	if (!index || !mm_slot_prepare_index(process, index)) {
		if (index)
			index_put(index);
		return fail(engine, LKSM_NO_MEMORY, "no memory for domain %u", domain);
	}
	forget_pages(process);
	mm_slot_set_index(process, index);
	if (engine->cursor.slot == process)
		engine->rules.work = &index->tally.work;
	return LKSM_OK;
}

bool lksm_process_join(struct mm_slot *process)
{
	for (uint64_t i = 0; i < process->nr_regions; i++) {
		struct region *region = process->regions[i];
		if (region->is_excluded || region->nr_mergeable == region->nr_pages)
			continue;
		region_join(region);
	}
	return mm_slot_is_mergeable(process);
}

void lksm_process_register(struct mm_slot *process)
{
	if (process->is_registered)
		return;
	process->is_registered = true;
	process->is_newcomer = true;
}

static int check_present(struct mm_slot *process, uint64_t page)
{
	uint64_t place;
	if (page >= process->nr_pages)
		return fail(process->engine, LKSM_INVALID, "page %" PRIu64 " is not within the %" PRIu64 " of the process",
			    page, process->nr_pages);
	struct region *region = mm_slot_region(process, page, &place);
	if (!page_is_present(region, place))
		return fail(process->engine, LKSM_INVALID, "page %" PRIu64 " is absent", page);
	return LKSM_OK;
}

int lksm_process_read(struct mm_slot *process, uint64_t page, uint64_t nr_pages, void *bytes)
{
	uint64_t page_size = process->engine->rules.page_size;
	int error = check_range(process, page, page + nr_pages);
	for (uint64_t i = 0; !error && i < nr_pages; i++)
		error = check_present(process, page + i);
	for (uint64_t i = 0; !error && i < nr_pages; i++) {
		uint64_t place;
		struct region *region = mm_slot_region(process, page + i, &place);
		memcpy((uint8_t *)bytes + i * page_size, region_page(region, place), page_size);
	}
	return error;
}

int lksm_process_write(struct mm_slot *process, uint64_t page, uint64_t offset, const void *bytes,
		       uint64_t nr_bytes)
{
	struct engine *engine = process->engine;
	uint64_t page_size = engine->rules.page_size;
	uint64_t place;
	int error = check_present(process, page);
	if (error)
		return error;
	if (offset > page_size || nr_bytes > page_size - offset)
		return fail(engine, LKSM_INVALID, "%" PRIu64 " bytes at offset %" PRIu64 " do not fit a page of %" PRIu64,
			    nr_bytes, offset, page_size);
	if (mm_slot_region(process, page, &place)->is_immutable)
		return fail(engine, LKSM_INVALID, "page %" PRIu64 " is immutable", page);
	return fork_write(process, page, offset, bytes, nr_bytes);
}

void lksm_process_status(const struct mm_slot *process, struct lksm_status *status_ret)
{
	report_status(process, status_ret);
}

/* --- scanning -------------------------------------------------------------------------------- */

void lksm_enqueue(struct mm_slot *process, bool is_frozen)
{
	assert(process->is_registered);
	scan_enqueue(process, is_frozen);
}

void lksm_dequeue(struct mm_slot *process)
{
	scan_dequeue(process);
}

void lksm_move_to_front(struct mm_slot *process)
{
	scan_move_to_front(process);
}

void lksm_clear_scanned(struct mm_slot *process)
{
	process->is_scanned = false;
}

void lksm_requeue_frozen(struct mm_slot *process, bool is_wanted)
{
	process->requeue_frozen = is_wanted && process->pending != LKSM_PENDING_NONE;
}

void lksm_begin_round(struct engine *engine, uint64_t now)
{
	engine->now = now;
	if (engine->cursor.slot)
		engine->cursor.slot->started = now;	/* or its scan would seem to have lasted as long as the stop */
	engine->crawl_round++;
	engine->nr_gated = 0;
	engine->nr_begun_slots = 0;
	engine->nr_scanned_slots = 0;
	engine->round_start = report_tally(engine, -1);
}

int lksm_scan(struct engine *engine, uint64_t nr_pages, uint64_t now, uint64_t *nr_scanned_ret)
{
	if (!engine->crawl_round)
		return fail(engine, LKSM_INVALID, "no round has begun");
	engine->now = now;
	int error = scan(engine, nr_pages, nr_scanned_ret);
	return error ? fail(engine, error, "no memory to remember a page") : LKSM_OK;
}

void lksm_begin_help(struct engine *engine, uint32_t nr_helpers)
{
	helpers_begin(engine, nr_helpers);
}

void lksm_help(struct engine *engine)
{
	helpers_work(engine);
}

void lksm_end_help(struct engine *engine)
{
	helpers_end(engine);
}

uint64_t lksm_nr_asked(const struct engine *engine)
{
	return engine->helpers.nr_asked;
}

uint64_t lksm_nr_waiting(const struct engine *engine, uint64_t most)
{
	return scan_nr_waiting(engine, most);
}

bool lksm_is_walking(const struct engine *engine)
{
	return engine->cursor.slot != NULL;
}

void lksm_prune_chains(struct engine *engine, uint64_t now)
{
	engine->now = now;
	for (struct index *index = engine->indexes; index; index = index->next)
		chain_prune(index);
}

bool lksm_has_queue(const struct engine *engine)
{
	return engine->queue != NULL;
}

struct mm_slot *lksm_next_queued(const struct engine *engine, const struct mm_slot *process)
{
	return process ? process->queue_next : engine->queue;
}

void lksm_unmerge(struct engine *engine)
{
	for (struct mm_slot *slot = engine->slots; slot; slot = slot->next)
		scan_dequeue(slot);
	for (struct index *index = engine->indexes; index; index = index->next) {
		for (uint32_t tree = 0; tree < engine->nr_nodes; tree++) {
			unstable_tree_drop_kept(index, tree);
			unstable_tree_drop(index, tree);
		}
		stable_tree_dissolve_all(index, ANY_NODE);
	}
	engine->scan_round = 0;
	for (struct mm_slot *slot = engine->slots; slot; slot = slot->next)
		forget_pages(slot);
}

int lksm_offline(struct engine *engine, uint32_t node)
{
	if (node >= engine->nr_nodes)
		return fail(engine, LKSM_INVALID, "memory node %u, the engine has %u", node, engine->nr_nodes);
	for (struct index *index = engine->indexes; index; index = index->next)
		stable_tree_dissolve_all(index, node);
	return LKSM_OK;
}

/* --- reports --------------------------------------------------------------------------------- */

void lksm_counters(const struct engine *engine, int64_t domain, struct lksm_counters *counters_ret)
{
	report_counters(engine, domain, counters_ret);
}

void lksm_page_table(const struct mm_slot *process, int64_t *entries_ret)
{
	report_page_table(process, entries_ret);
}

int lksm_explain(struct mm_slot *process, uint64_t page, bool across_domains,
		 struct lksm_explanation *explanation_ret)
{
	if (page >= process->nr_pages)
		return fail(process->engine, LKSM_INVALID, "page %" PRIu64 " is not within the %" PRIu64 " of the process",
			    page, process->nr_pages);
	*explanation_ret = report_explain(process, page, across_domains);
	return LKSM_OK;
}

uint64_t lksm_nr_groups(struct engine *engine, int64_t domain, uint64_t min_pages)
{
	return report_nr_groups(engine, domain, min_pages);
}

uint64_t lksm_groups(struct engine *engine, int64_t domain, uint64_t min_pages, bool with_digests,
		     struct lksm_group *groups_ret)
{
	return report_groups(engine, domain, min_pages, with_digests, groups_ret);
}

int64_t lksm_find(struct engine *engine, uint32_t domain, const uint8_t *bytes)
{
	for (struct index *index = engine->indexes; index; index = index->next)
		if (index->domain == domain)
			return report_find(index, bytes);
	return LKSM_ENTRY_ABSENT;
}

int lksm_page_digest(struct mm_slot *process, uint64_t page, uint64_t *digest_ret)
{
	uint64_t place;
	int error = check_present(process, page);
	if (error)
		return error;
	const struct region *region = mm_slot_region(process, page, &place);
	*digest_ret = page_digest(&process->engine->rules, region_page(region, place));
	return LKSM_OK;
}

int lksm_sharing_matrix(struct engine *engine, int64_t *matrix_ret)
{
	int error = report_sharing_matrix(engine, matrix_ret);
	return error ? fail(engine, error, "no memory to count sharers") : LKSM_OK;
}

void lksm_memory(const struct engine *engine, int64_t domain, uint64_t *bytes_ret)
{
	report_memory(engine, domain, bytes_ret);
}

uint64_t lksm_check(struct engine *engine, char *text, size_t size)
{
	return check(engine, text, size);
}

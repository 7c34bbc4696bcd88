/*
 * index.c - the forests of a domain, three for each memory node, and the set of sample keys they share.
 */
#include "index.h"

#include "filter.h"
#include "region.h"
#include "zero.h"

/* A chain stands for the bytes that all its dups have. */
static const uint8_t *node_bytes(const struct pool *pool, uint32_t ref)
{
	const struct stable_node *node = pool_at(pool, ref);
	if (node->kind == NODE_CHAIN)
		node = pool_at(pool, node->first_dup);
	return node->bytes;
}

struct index *index_get(struct engine *engine, uint32_t domain)
{
	struct index *index = engine->indexes;
	while (index && index->domain != domain)
		index = index->next;
	if (index)
		return index;
	index = memory_alloc(&engine->memory, LKSM_FOR_ENGINE, sizeof(*index));
	if (!index)
		return NULL;
	index->trees = memory_alloc(&engine->memory, LKSM_FOR_ENGINE, engine->nr_nodes * sizeof(*index->trees));
	if (!index->trees) {
		memory_free(&engine->memory, LKSM_FOR_ENGINE, index, sizeof(*index));
		return NULL;
	}
	index->engine = engine;
	index->domain = domain;
	for (uint32_t i = 0; i < engine->nr_nodes; i++) {
		forest_init(&index->trees[i].stable, &engine->memory, &engine->nodes, node_bytes);
		forest_init(&index->trees[i].unstable, &engine->memory, &engine->items, item_bytes);
		forest_init(&index->trees[i].kept, &engine->memory, &engine->items, item_bytes);
	}
	keyset_init(&index->deepened, &engine->memory);
	physical_init(&index->physical, &engine->memory, &engine->items, item_bytes);
	zero_map_init(&index->zero, &engine->memory);
	filter_map_init(&index->filters, &engine->memory);
	index->next = engine->indexes;
	engine->indexes = index;
	return index;
}

void index_put(struct index *index)
{
	struct engine *engine = index->engine;
	if (index->nr_slots)
		return;
	struct index **link = &engine->indexes;
	while (*link != index)
		link = &(*link)->next;
	*link = index->next;
	tally_add(&engine->gone, &index->tally);
	for (uint32_t i = 0; i < engine->nr_nodes; i++) {
		forest_deinit(&index->trees[i].stable);
		forest_deinit(&index->trees[i].unstable);
		forest_deinit(&index->trees[i].kept);
	}
	memory_free(&engine->memory, LKSM_FOR_ENGINE, index->trees, engine->nr_nodes * sizeof(*index->trees));
	keyset_deinit(&index->deepened);
	physical_deinit(&index->physical);
	zero_map_deinit(&index->zero);
	filter_map_deinit(&index->filters);
	memory_free(&engine->memory, LKSM_FOR_ENGINE, index, sizeof(*index));
}

void tally_add(struct tally *sum, const struct tally *tally)
{
	sum->merged += tally->merged;
	sum->broken += tally->broken;
	sum->pages_scanned += tally->pages_scanned;
	sum->pages_skipped += tally->pages_skipped;
	sum->shares.data += tally->shares.data;
	sum->shares.bss += tally->shares.bss;
	sum->shares.conflicted += tally->shares.conflicted;
	sum->work.bytes_compared += tally->work.bytes_compared;
	sum->work.bytes_hashed += tally->work.bytes_hashed;
}

/*
 * The domain's bits, the lowest one first, head 63 bits and the serial number is added at their foot. So frames of
 * domain 0 count from 0, and the fewer bits domains have, the more frames each may number: with 256 domains 2^55.
 */
uint64_t index_frame_id(const struct index *index, uint64_t serial)
{
	uint64_t start = 0;
	for (uint32_t bit = 0; bit < 32; bit++)
		start |= (uint64_t)(index->domain >> bit & 1) << (62 - bit);
	return start + serial;
}

static void take_hash(const struct index *index, struct look *look)
{
	if (!look->has_hash)
		look->hash = look_hash(&index->engine->rules, look);
	look->has_hash = true;
	look->key = look->hash;
	look->is_deep = true;
}

void index_look(const struct index *index, const uint8_t *bytes, struct look *look_ret)
{
	index_look_foreseen(index, bytes, page_take_sample(&index->engine->rules, bytes), NULL, look_ret);
}

void index_look_foreseen(const struct index *index, const uint8_t *bytes, uint64_t sample,
			 const struct foreseen *foreseen, struct look *look_ret)
{
	bool is_whole = index->engine->rules.is_sample_whole;

	look_ret->bytes = bytes;
	look_ret->sample = look_ret->hash = look_ret->key = sample;
	look_ret->foreseen = foreseen;
	look_ret->has_hash = is_whole;
	look_ret->is_deep = false;
	page_book_sample(&index->engine->rules);
	if (is_whole || keyset_has(&index->deepened, sample))
		take_hash(index, look_ret);
}

void index_deepen(struct index *index, struct look *look)
{
	if (!keyset_add(&index->deepened, look->sample)) {
		look->is_deep = true;	/* stays under its sample; the order by bytes tells it apart */
		return;
	}
	for (uint32_t i = 0; i < index->engine->nr_nodes; i++) {
		forest_deepen(&index->trees[i].stable, &index->engine->rules, look->sample);
		forest_deepen(&index->trees[i].unstable, &index->engine->rules, look->sample);
		forest_deepen(&index->trees[i].kept, &index->engine->rules, look->sample);
	}
	take_hash(index, look);
}

uint32_t index_search_filed(struct index *index, const struct forest *forest, struct look *look, struct place *place_ret)
{
	for (;;) {
		uint32_t ref = 0;
		/* untested: a switch has a way for no value of the enum */
		switch (forest_search(forest, &index->engine->rules, look, place_ret, &ref)) {
		case FOREST_FOUND:
			return ref;
		case FOREST_ABSENT:
			return 0;
		case FOREST_COLLISION:
			index_deepen(index, look);
		}
	}
}

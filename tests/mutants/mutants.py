"""The ways in which the core is broken on purpose: file, text that stands there once, what replaces it, why.

Texts are short, so that they survive when code around them moves. One that is not there exactly once ends the
run: then the mutation is moved along with the code, or another one is thought of.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    file: str  # in csrc/
    text: str  # there exactly once
    instead: str
    why: str


MUTANTS = [
    # --- counters
    Mutant("stable_tree.c", "index->pages_sharing++;", ";", "a sharer is not counted"),
    Mutant("stable_tree.c", "index->pages_sharing--;", ";", "a sharer that leaves stays counted"),
    Mutant("stable_tree.c", "index->pages_shared++;", ";", "a frame is not counted"),
    Mutant("stable_tree.c", "slot->merged++;", ";", "a merge is not in the process's window"),
    Mutant("stable_tree.c", "index->tally.merged++;", ";", "a merge is not told of"),
    Mutant("stable_tree.c", "region->slot->broken++;", ";", "a break is not the process's"),
    Mutant(
        "stable_tree.c",
        "node->nr_sharers - 1;\n\tindex->tally",
        "node->nr_sharers;\n\tindex->tally",
        "a frame that is dissolved takes one sharer too many along",
    ),
    Mutant("stable_tree.c", "slot->nr_stable--;", ";", "a process keeps its merged pages"),
    Mutant(
        "unstable_tree.c", "visit->region->slot->nr_unstable++;", ";", "a unique page is not the process's"
    ),
    Mutant("unstable_tree.c", "index->pages_unshared--;", ";", "a unique page stays counted"),
    Mutant("scan.c", "tally.pages_scanned++;", "tally.pages_scanned += 2;", "a visit counts twice"),
    Mutant("scan.c", "tally.pages_skipped++;", "tally.pages_scanned++;", "a page left out counts as visited"),
    Mutant("scan.c", "slot->engine->nr_scanned_slots++;", ";", "a completed process is not counted"),
    Mutant("scan.c", "engine->nr_begun_slots++;", ";", "a process that is begun is not counted"),
    Mutant("merge.c", "engine->nr_gated++;", ";", "what the gate holds back is not counted"),
    Mutant("zero.c", "index->zero_pages++;", ";", "a zero page is not counted"),
    Mutant("zero.c", "index->zero_saved++;", "index->zero_saved += 2;", "a zero page saves two"),
    Mutant("zero.c", "region->nr_zero--;", ";", "a region keeps its zero pages"),
    Mutant("index.c", "sum->broken += tally->broken;", ";", "breaks of a domain are forgotten"),
    Mutant(
        "index.c",
        "tally_add(&engine->gone, &index->tally);",
        ";",
        "a domain that is left takes its work along",
    ),
    Mutant("chain.c", "index->nr_chains++;", ";", "a chain is not counted"),
    Mutant(
        "chain.c", "index->nr_dups++;\n\treturn chain_ref;", "return chain_ref;", "a first dup is not counted"
    ),
    Mutant("filter.c", "filter->nr_merges++;\n\t*(", "*(", "merges of a filter are not counted"),
    Mutant(
        "filter.c",
        "filter->nr_bits += !filter_has(filter, page);",
        "filter->nr_bits++;",
        "a bit is counted twice",
    ),
    # --- comparisons and limits
    Mutant(
        "chain.h",
        "node->nr_sharers < engine->max_page_sharing",
        "node->nr_sharers <= engine->max_page_sharing",
        "a frame takes one sharer too many",
    ),
    Mutant(
        "chain.c",
        "node->nr_sharers > node_at(engine, fullest)->nr_sharers",
        "node->nr_sharers < node_at(engine, fullest)->nr_sharers",
        "the emptiest dup is chosen",
    ),
    Mutant(
        "chain.c",
        "engine->now >= node_at(engine, chain_ref)->pruned",
        "engine->now > node_at(engine, chain_ref)->pruned",
        "a chain is due a tick late",
    ),
    Mutant(
        "forest.c",
        "int order = (look->key > key) - (look->key < key);",
        "int order = (look->key >= key) - (look->key < key);",
        "equal keys are told to differ",
    ),
    Mutant(
        "forest.c", "place.side = order > 0;", "place.side = order < 0;", "a search goes to the wrong side"
    ),
    Mutant(
        "forest.c",
        "nr_entries > (uint64_t)1 << bits",
        "nr_entries > (uint64_t)(ENTRIES_PER_ROOT + 9) << bits",
        "forests get too few roots",
    ),
    Mutant(
        "forest.c",
        "if (key != sample && page_sample(rules, bytes) == sample)",
        "if (key != sample)",
        "an object of another class is deepened",
    ),
    Mutant("forest.c", "return FOREST_COLLISION;", "return FOREST_FOUND;", "a key says equal"),
    Mutant(
        "page.c",
        "while (at < rules->page_size && a[at] == b[at])",
        "while (at < rules->page_size && a[at] != b[at])",
        "the first difference is the first likeness",
    ),
    Mutant(
        "page.c",
        "return !bytes[0] && !memcmp(bytes, bytes + 1, rules->page_size - 1);",
        "return !memcmp(bytes, bytes + 1, rules->page_size - 1);",
        "any page of one byte is zero",
    ),
    Mutant(
        "page.h", "& ~(uint32_t)1", "& ~(uint32_t)0", "a checksum uses the bit that says whether there is one"
    ),
    Mutant(
        "merge.c",
        "engine->scan_round < engine->initial_rounds",
        "engine->scan_round <= engine->initial_rounds",
        "the gate is closed a round too long",
    ),
    Mutant(
        "merge.c",
        "if (checksum == item->checksum)",
        "if (checksum != item->checksum)",
        "the gate is upside down",
    ),
    Mutant("merge.c", "item->checksum = checksum;", ";", "the gate remembers nothing"),
    Mutant("smart_scan.c", "if (age <= 5)", "if (age < 5)", "smart scan's second step comes early"),
    Mutant(
        "smart_scan.c",
        "else if (age >= ALWAYS_VISITED)",
        "else if (age > ALWAYS_VISITED)",
        "smart scan's first step comes late",
    ),
    Mutant(
        "keyset.c",
        "2 * set->nr_keys >= set->nr_places",
        "set->nr_keys > set->nr_places",
        "a set is filled to the brim",
    ),
    Mutant(
        "probing.h", ">= ((place - gap) & mask)", "> ((place - gap) & mask)", "an entry behind a gap is lost"
    ),
    Mutant(
        "zero.c",
        "map->addresses[place] = (struct zero_address){ 0 };\n\t\thole = place;",
        "map->addresses[place] = (struct zero_address){ 0 };",
        "an address behind a second gap is lost",
    ),
    Mutant(
        "extent.c",
        "extent_at(engine, ref)->end > start",
        "extent_at(engine, ref)->end >= start",
        "regions that only touch overlap",
    ),
    Mutant(
        "extent.c",
        "side = extent->start > extent_at(engine, ref)->start;",
        "side = extent->start < extent_at(engine, ref)->start;",
        "extents are filed the wrong way round",
    ),
    Mutant(
        "scan.c",
        "while (find_page(engine) && nr_scanned < nr_pages)",
        "while (find_page(engine) && nr_scanned <= nr_pages)",
        "a batch visits a page too many",
    ),
    Mutant(
        "mm_slot.c",
        "if (slot->regions[middle]->first_page <= page)",
        "if (slot->regions[middle]->first_page < page)",
        "the first page of a region is the last one's next",
    ),
    Mutant(
        "lksm.c",
        "start <= stop && stop <= process->nr_pages",
        "start <= stop && stop <= process->nr_pages + 1",
        "a range reaches behind the last page",
    ),
    Mutant(
        "lksm.c", "nr_bytes > page_size - offset", "nr_bytes > page_size", "a write reaches behind its page"
    ),
    Mutant("lksm.c", "region->rows[i] < -1 ||", "region->rows[i] < -2 ||", "a row below absent is taken"),
    Mutant("lksm.c", "if (max_page_sharing < 2)", "if (max_page_sharing < 1)", "a frame may have one sharer"),
    Mutant(
        "filter.c",
        "engine->scan_round - filter->birth > engine->filter_maturity",
        "engine->scan_round - filter->birth >= engine->filter_maturity",
        "a filter is mature a round early",
    ),
    Mutant("filter.c", "(nr_pages + 63) / 64", "nr_pages / 64", "a filter is a word short"),
    # --- steps left out
    Mutant(
        "merge.c",
        "detach(engine, item_ref);\t\t\t/* row 4",
        ";\t\t\t/* row 4",
        "a broken page is not detached",
    ),
    Mutant("merge.c", "\tdetach(engine, twin_ref);\n", "", "a twin stays in the unstable tree"),
    Mutant(
        "merge.c",
        "if (!node || node == equal)\n\t\tgive_up(engine, &frame);",
        "",
        "a frame that is not needed leaks",
    ),
    Mutant(
        "merge.c",
        "if (!is_equal(engine, visit->ref, &frame) || !is_equal(engine, twin_ref, &frame)) {",
        "if (!is_equal(engine, visit->ref, &frame)) {",
        "a twin written in between is merged",
    ),
    Mutant("merge.c", "item->is_alias = 1;", ";", "an alias is not told to be one"),
    Mutant("merge.c", "zero_remove_all(region);", ";", "a process leaves with its zero pages"),
    Mutant(
        "merge.c",
        "item->round = engine->scan_round;\t/* a kept",
        ";\t/* a kept",
        "a kept page stays of its old round",
    ),
    Mutant(
        "stable_tree.c",
        "if (was_lender && !find_new_home(engine, node_ref))",
        "if (false && !find_new_home(engine, node_ref))",
        "a lender takes the frame along",
    ),
    Mutant(
        "stable_tree.c",
        "region->is_immutable && !region->slot->is_leaving",
        "!region->slot->is_leaving",
        "a page that may be written becomes a lender",
    ),
    Mutant(
        "stable_tree.c",
        "if (was_full)\n\t\tchain_node_has_room(engine, node_ref);",
        "",
        "a full frame with room again is not found",
    ),
    Mutant("stable_tree.c", "item->is_private = 0;", ";", "a page that left its frame stays private"),
    Mutant(
        "stable_tree.c",
        "if (copy)\n\t\tframe_free(&engine->memory, (uint8_t *)node->bytes",
        "if (false)\n\t\tframe_free(&engine->memory, (uint8_t *)node->bytes",
        "a second copy of a chain's bytes leaks",
    ),
    Mutant(
        "chain.c",
        "chain_destroy(index, chain_ref, node_at(engine, chain_ref)->bytes)",
        "chain_destroy(index, chain_ref, NULL)",
        "the bytes of a chain leak",
    ),
    Mutant(
        "chain.c",
        "queue_remove(index, chain_ref);\n\tindex->nr_chains--;",
        "index->nr_chains--;",
        "a chain that is gone is still waiting to be pruned",
    ),
    Mutant(
        "chain.c",
        "node->is_owned ? NULL : chain->bytes",
        "NULL",
        "a collapsed chain's copy leaks",
    ),
    Mutant(
        "fork.c", "copy->copies[page]->nr_users++;", ";", "a page that a child inherits has a user too few"
    ),
    Mutant(
        "fork.c",
        "if (was_first)\n\t\tphysical_remove(map, ref);",
        "",
        "a page that moves stays at its old address",
    ),
    Mutant(
        "fork.c", "item_at(&slot->engine->items, ref)->is_private = 1;", ";", "a written page is not private"
    ),
    Mutant(
        "fork.c",
        "bool writer_moves = region->is_forked && (is_array || is_shared);",
        "bool writer_moves = region->is_forked && is_shared;",
        "a child writes its parent's array",
    ),
    Mutant("fork.c", "touch_page(region, place);", ";", "a write to tracked memory is not noticed"),
    Mutant("touch.c", "item->has_key = 0;", ";", "a touched page keeps its key"),
    Mutant(
        "scan.c",
        "scan_dequeue(slot);\n\tslot->is_registered = false;",
        "slot->is_registered = false;",
        "a process that exits stays queued",
    ),
    Mutant(
        "scan.c",
        "if (engine->cursor.slot == slot)\n\t\tbegin_slot(engine, slot->queue_next);",
        "",
        "the cursor stays on a process that left the queue",
    ),
    Mutant(
        "scan.c",
        "if (is_wanted_again)\n\t\tscan_enqueue(slot, true);",
        "",
        "a process frozen meanwhile is forgotten",
    ),
    Mutant("scan.c", "mm_slot_push_window(slot);", ";", "the merge window stands still"),
    Mutant("scan.c", "slot->merged = slot->broken = 0;", ";", "merges are counted in every later scan"),
    Mutant(
        "scan.c",
        "item->bypasses_gate = is_frozen && item->state == ITEM_UNSTABLE;",
        "item->bypasses_gate = is_frozen;",
        "every page of a frozen process passes the gate",
    ),
    Mutant("lksm.c", "zero_remove(region, page);", ";", "an unmapped page stays on the zero frame"),
    Mutant("lksm.c", "engine->scan_round = 0;", ";", "after unmerge the old round goes on"),
    Mutant("lksm.c", "engine->cursor.slot->started = now;", ";", "a stopped scan seems to go on"),
    Mutant(
        "region.c",
        "physical_remove(&region->slot->index->physical, ref);",
        ";",
        "an item that is gone keeps its address",
    ),
    Mutant("mm_slot.c", "region->is_aliased = true;", ";", "a region that others map is thought to be alone"),
    Mutant("mm_slot.c", "relative->family_next = slot->family_next;", ";", "a family keeps a dead member"),
    Mutant(
        "migrate.c",
        "node_at(engine, item->sharer.node)->memory_node = memory_node & UINT8_MAX;",
        ";",
        "a page moves without its frame",
    ),
    Mutant(
        "migrate.c",
        "if (!node_has_room(engine, node_at(engine, equal)))\n\t\treturn false;",
        "",
        "a moved page joins a full frame",
    ),
    Mutant(
        "filter.c",
        "if (filter && !--filter->nr_regions)",
        "if (filter && !filter->nr_regions)",
        "a filter outlives its regions",
    ),
    Mutant("pool.c", "memset(object, 0, pool->object_size);", ";", "an object is not new"),
    Mutant("memory.c", "memory->reserved[purpose] -= old_size;", ";", "a block that grows is booked twice"),
    Mutant(
        "arena.c",
        "if (slab->nr_free == slab->nr_blocks)\n\t\tslab_destroy(arena, slab);",
        "",
        "an empty slab is kept",
    ),
    Mutant("rbtree.c", "rb_at(pool, *root)->is_red = 0;", ";", "a root is red"),
    Mutant(
        "report.c",
        "item->state == ITEM_STABLE && !item->is_private ? item->sharer.node : 0",
        "item->state == ITEM_STABLE ? item->sharer.node : 0",
        "a private page is told to be merged",
    ),
    Mutant(
        "report.c",
        "if (!*first || is_before(engine, ref, *first))",
        "if (!*first)",
        "a group names any of its pages",
    ),
    Mutant("report.c", "counts[present[i]] = 0;", ";", "the sharing matrix adds up what it saw before"),
    # --- what threads find out before a visit
    Mutant(
        "ahead.h",
        "foreseen->forest = NULL;",
        ";",
        "a compare with a node that is gone holds for the one that came in its place",
    ),
    Mutant("stable_tree.c", "\tengine->nr_gone++;", "\t;", "a frame goes unnoticed"),
    Mutant("stable_tree.c", "index->engine->nr_gone++;", ";", "a frame that is filed anew goes unnoticed"),
    Mutant("chain.c", "engine->nr_gone++;", ";", "a chain goes unnoticed"),
    Mutant("page.h", "bytes_compared += foreseen->nr_compared;", "bytes_compared += 0;", "compares are free"),
    Mutant(
        "page.h",
        "bytes_hashed += rules->page_size;\n\treturn look->foreseen->hash",
        "bytes_hashed += 0;\n\treturn look->foreseen->hash",
        "hashes are free",
    ),
    Mutant("index.c", "page_book_sample(&index->engine->rules);", ";", "samples are free"),
    Mutant("helpers.c", "(order > 0) - (order < 0)", "(order < 0) - (order > 0)", "greater is less"),
    Mutant(
        "helpers.c",
        "order ? page_difference(rules, bytes, other)",
        "order ? rules->page_size",
        "a compare by a helper costs the whole page",
    ),
    Mutant(
        "helpers.c",
        "errand->hashes |= (uint8_t)(foreseen[i].is_hash << i);",
        ";",
        "a helper compares what it was to hash",
    ),
    Mutant(
        "helpers.c",
        "if (errand->hashes >> i & 1) {\n\t\t\tforeseen",
        "if (!(errand->hashes >> i & 1)) {\n\t\t\tforeseen",
        "a helper's hash is taken for a compare",
    ),
    Mutant(
        "helpers.c",
        "if (state == ERRAND_NONE)\n\t\treturn 0;",
        "if (state != ERRAND_OPEN)\n\t\treturn 0;",
        "what a helper has begun is thought to be nobody's",
    ),
    Mutant(
        "helpers.c",
        "foreseen->is_compared = foreseen->is_frame = false;\n\t\tforeseen->other = NULL;",
        "foreseen->is_frame = false;",
        "a compare with a frame that is gone is remembered",
    ),
    Mutant(
        "helpers.c",
        "helpers_settle(engine, helpers_reads(engine, i / GROUP_PAGES));",
        ";",
        "helpers go on with frames that are gone",
    ),
    Mutant(
        "helpers.c",
        "if (!foreseen[i].is_hash && !foreseen[i].other)\n\t\t\tcontinue;",
        "",
        "helpers are sent to frames that are gone",
    ),
    Mutant(
        "helpers.c",
        ">= ERRANDS_EACH * nr_helpers",
        ">= 1000 * nr_helpers",
        "helpers are sent for all there is",
    ),
    Mutant(
        "helpers.c", "i < AHEAD_PAGES; i++", "i < 16; i++", "what was said of pages far ahead is remembered"
    ),
    Mutant(
        "stable_tree.c", "\thelpers_forget_frames(engine);", "\t;", "helpers do not hear of a frame that goes"
    ),
    Mutant(
        "stable_tree.c",
        "\thelpers_forget_frames(index->engine);",
        "\t;",
        "helpers do not hear of a frame that was moved",
    ),
    Mutant("chain.c", "\thelpers_forget_frames(engine);", "\t;", "helpers do not hear of a copy that goes"),
    Mutant("scan.c", "\tahead_reset(engine);\n\treturn", "\treturn", "errands outlive their batch"),
    Mutant(
        "report.c",
        "item_at(&index->engine->items, target ? target : ref)",
        "item_at(&index->engine->items, ref)",
        "an alias is not shown what stands for its page",
    ),
    # --- what is found out a few pages ahead of a visit
    Mutant(
        "ahead.c",
        "engine->ahead.foreseen[page & engine->ahead.mask]",
        "engine->ahead.foreseen[0]",
        "what is found out of all pages has one place",
    ),
    Mutant(
        "ahead.c",
        "foreseen->has_hash = foreseen->is_compared = foreseen->is_frame = false;",
        ";",
        "what was found out of a page is said of the next one in its place",
    ),
    Mutant(
        "ahead.c", "at < end && at < first", "at < first", "memory behind a region is read to have it mapped"
    ),
    Mutant(
        "ahead.c",
        "place = 0; ahead->nr_wanted;",
        "place = 0; ahead->nr_wanted > 1;",
        "the last place outlives its batch",
    ),
    Mutant(
        "ahead.c",
        "AHEAD_PAGES - 1 : PAGES_ALONE - 1;",
        "AHEAD_PAGES - 1 : 7;",
        "pages that are ahead share places",
    ),
    Mutant(
        "ahead.c",
        "foreseen->is_frame = node->kind != NODE_PLAIN || node->is_owned;",
        "foreseen->is_frame = false;",
        "frames are thought to stay",
    ),
    Mutant(
        "ahead.c",
        "page_take_hash(&engine->rules, ahead->bytes)",
        "ahead->key",
        "a hash taken ahead is the sample",
    ),
    Mutant(
        "ahead.c",
        "page_take_hash(&engine->rules, ahead->bytes)",
        "page_take_hash(&engine->rules, ahead_page(engine, page - (page > 0))->bytes ?: ahead->bytes)",
        "the hash of the page before is handed over",
    ),
    Mutant(
        "ahead.c",
        "uint64_t next = ahead->next; is_near",
        "uint64_t next = page; is_near",
        "pages that are left out keep their places",
    ),
    Mutant(
        "ahead.c",
        "region == ahead->region && ",
        "",
        "an unexpected region is taken for the one that was asked for",
    ),
    Mutant(
        "ahead.c",
        "if (is_helped) {\t/*",
        "if (is_helped && engine->ahead.nr_wanted) {\t/*",
        "a group is sent for with what was wanted of the one before in its place",
    ),
    Mutant(
        "ahead.h",
        "*sample_ret = ahead->sample;",
        "*sample_ret = ahead->key;",
        "a hash taken ahead is handed over as the sample",
    ),
    # --- the hash of zeros
    Mutant(
        "merge.c",
        "look->hash != engine->rules.zero_hash",
        "look->hash == engine->rules.zero_hash",
        "the hash of zeros says that a page is none",
    ),
    Mutant(
        "merge.c",
        "if (look->has_hash && engine->rules",
        "if (engine->rules",
        "a sample is held against the hash of zeros",
    ),
    Mutant(
        "merge.c",
        "engine->rules.has_zero_hash && ",
        "",
        "large zeros are held against a hash that nobody has taken",
    ),
    # --- samples, keys and roots
    Mutant(
        "page.c",
        "nr_lines * (i + 1) / SAMPLE_LINES",
        "nr_lines",
        "both sampled lines may be the same",
    ),
    Mutant(
        "page.c",
        "bytes + rules->lines[i], SAMPLE_BYTES",
        "bytes + rules->lines[0], SAMPLE_BYTES",
        "one line is sampled twice",
    ),
    Mutant(
        "index.h",
        "*place_ret = (struct place){ 0, 0 };\n",
        "",
        "a search of an empty forest leaves the place of the one before",
    ),
    Mutant(
        "index.h",
        "return forest->nr_entries ? index_search",
        "return forest->nr_entries > 1 ? index_search",
        "a forest of one is empty",
    ),
    Mutant("index.c", "look_ret->has_hash = is_whole;", "look_ret->has_hash = true;", "a sample is a hash"),
    Mutant("index.c", "look_ret->is_deep = false;", "look_ret->is_deep = true;", "every look is deep"),
    Mutant(
        "index.c",
        "if (is_whole || keyset_has(&index->deepened, sample))",
        "if (is_whole)",
        "a page of a deepened class is looked for under its sample",
    ),
    Mutant(
        "forest.c", "(63 - forest->root_bits)", "(64 - forest->root_bits)", "roots are numbered by a bit less"
    ),
    Mutant("forest.c", "key >> 1 >> (63", "key >> (63", "roots are numbered by a bit more"),
    Mutant(
        "forest.c",
        "if (!forest->next_roots)\n\t\treturn",
        "if (!forest->next_roots || forest->roots)\n\t\treturn",
        "a forest that grows is searched by its old roots",
    ),
    Mutant("smart_scan.c", "if (age < MAX_AGE)", "if (true)", "the oldest page is young again"),
    # --- joining
    Mutant(
        "region.c",
        "joins = !region->flags[page];",
        "joins = !(region->flags[page] & ~PAGE_OPTED_OUT);",
        "a page that was opted out joins",
    ),
    Mutant(
        "region.c",
        "joins = !region->flags[page];",
        "joins = !(region->flags[page] & ~PAGE_UNMAPPED);",
        "an unmapped page joins",
    ),
    Mutant(
        "region.c",
        "joins = !region->flags[page];",
        "joins = !(region->flags[page] & ~PAGE_MERGEABLE);",
        "a page that has joined joins again",
    ),
    Mutant("region.c", "nr_joined += joins;", ";", "pages that join are not counted"),
    Mutant(
        "region.c",
        "region->nr_mergeable += nr_joined;",
        "region->nr_mergeable = nr_joined;",
        "pages that had joined before are counted no more",
    ),
    Mutant(
        "lksm.c",
        "region->is_excluded || region->nr_mergeable",
        "region->nr_mergeable",
        "an excluded region joins",
    ),
    # --- memory of the system
    Mutant("arena.c", "(size + MIN_SLAB - 1) & ~", "size & ~", "a large table loses its last part"),
    Mutant("arena.c", "mapped < size || ", "", "a size that overflows is a small one"),
    Mutant("arena.c", " || wanted < mapped)", ")", "a size that overflows when it is aligned is a small one"),
    Mutant(
        "arena.c", "-(uintptr_t)bytes % MAX_SLAB", "-(uintptr_t)bytes % MIN_SLAB", "a slab may lie anywhere"
    ),
    Mutant("arena.c", "munmap(bytes, before);", "munmap(bytes, before + 1);", "a slab loses its first page"),
    Mutant(
        "arena.c",
        "munmap(bytes, mapped_size(size));",
        "munmap(bytes, size);",
        "the end of a large table leaks",
    ),
    Mutant("arena.c", "arena_unmap(slab->bytes, slab->size);", ";", "slabs leak"),
    Mutant("arena.c", "first = middle + 1;", "first = middle + 2;", "a block is given back to another slab"),
    Mutant("arena.c", "if (arena->nr_slabs)\n\t\treturn;", "return;", "the table of slabs outlives them"),
    Mutant("arena.c", "nr_bytes < SMALL ?", "nr_bytes > SMALL ?", "the first slab is the large one"),
    Mutant("memory.c", "if (!resized)\n\t\treturn NULL;", "", "memory is moved to nowhere"),
    Mutant(
        "memory.c",
        "memset(resized + old_size, 0, new_size - old_size);",
        ";",
        "what memory grows by is not zero",
    ),
    Mutant(
        "pool.c",
        "memory_may_grow(memory) ? arena_map(size) : NULL;",
        "arena_map(size);",
        "a large table never fails",
    ),
    Mutant(
        "pool.c",
        "arena_map(size) : NULL;\n\tif (bytes)",
        "arena_map(size) : NULL;\n\tif (false)",
        "a large table is not booked",
    ),
    Mutant(
        "pool.c",
        "if (size < ARENA_HUGE) {",
        "if (size <= ARENA_HUGE) {",
        "a table of one huge page is given to malloc",
    ),
    Mutant("pool.c", "-= size;\n\t\tarena_unmap", "-= 0;\n\t\tarena_unmap", "a large table stays booked"),
    Mutant("pool.c", "arena_unmap(bytes, size);", ";", "large tables leak"),
]

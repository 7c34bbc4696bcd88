/*
 * report.h - what was found: page tables, groups, who shares with whom, and why a page is not merged.
 */
#ifndef REPORT_H
#define REPORT_H

#include "types.h"

void report_page_table(const struct mm_slot *slot, int64_t *entries_ret);
struct lksm_explanation report_explain(struct mm_slot *slot, uint64_t page, bool across_domains);
uint64_t report_nr_groups(struct engine *engine, int64_t domain, uint64_t min_pages);
uint64_t report_groups(struct engine *engine, int64_t domain, uint64_t min_pages, bool with_digests,
		       struct lksm_group *groups_ret);
int64_t report_find(struct index *index, const uint8_t *bytes);
int report_sharing_matrix(struct engine *engine, int64_t *matrix_ret);
/* What happened so far, in one domain or in all. */
struct tally report_tally(const struct engine *engine, int64_t domain);
void report_counters(const struct engine *engine, int64_t domain, struct lksm_counters *counters_ret);
void report_memory(const struct engine *engine, int64_t domain, uint64_t *bytes_ret);
void report_status(const struct mm_slot *slot, struct lksm_status *status_ret);

#endif

// SPDX-License-Identifier: GPL-2.0
/*
 * C shim, block half: inline functions and macros of the block and page layers as functions.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/mempool.h>
#include <linux/mm.h>
#include <linux/part_stat.h>
#include <linux/sched.h>

#include "shim_block.h"

void drbd_shim_bio_inc_remaining(struct bio *bio)
{
	bio_inc_remaining(bio);
}

/* While a submit_bio method runs, bios that it submits wait for its return. */
bool drbd_shim_inside_submit(void)
{
	return current->bio_list != NULL;
}

u64 drbd_shim_bdev_sectors_done(struct block_device *bdev)
{
	struct block_device *whole = bdev_whole(bdev);

	return (u64)part_stat_read(whole, sectors[STAT_READ]) +
	       part_stat_read(whole, sectors[STAT_WRITE]);
}

bool drbd_shim_bdev_read_only(struct block_device *bdev)
{
	return bdev_read_only(bdev);
}

int drbd_shim_bdev_name(struct block_device *bdev, char *name, size_t size)
{
	return scnprintf(name, size, "%pg", bdev);
}

int drbd_shim_update_limits(struct gendisk *disk, bool frozen,
			    void (*change)(struct queue_limits *limits, void *context),
			    void *context)
{
	struct queue_limits limits = queue_limits_start_update(disk->queue);

	change(&limits, context);
	if (frozen)
		return queue_limits_commit_update_frozen(disk->queue, &limits);
	return queue_limits_commit_update(disk->queue, &limits);
}

void *drbd_shim_page_address(struct page *page)
{
	return page_address(page);
}

unsigned long drbd_shim_ram_pages(void)
{
	return totalram_pages();
}

bool drbd_shim_mempool_full(struct mempool *pool)
{
	return READ_ONCE(pool->curr_nr) >= READ_ONCE(pool->min_nr);
}

/*
 * The order of a page that nobody else refers to, or -1. One that came from memory kept for
 * reclaim must go back there.
 */
int drbd_shim_page_sole_order(struct page *page)
{
	if (page_ref_count(page) != 1 || page_is_pfmemalloc(page))
		return -1;
	return compound_order(page);
}

void drbd_shim_page_put(struct page *page)
{
	put_page(page);
}

/*
 * Only a page that nobody else refers to may go back into the reserve: a socket can still hold
 * one that was lent to it.
 */
void drbd_shim_page_release(struct page *page, struct mempool *pool)
{
	if (!PageCompound(page) && page_ref_count(page) == 1)
		mempool_free(page, pool);
	else
		put_page(page);
}

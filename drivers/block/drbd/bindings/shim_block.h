/* SPDX-License-Identifier: GPL-2.0 */
/*
 * C shim, block half: inline functions and macros of the block and page layers as functions.
 */
#ifndef DRBD_SHIM_BLOCK_H
#define DRBD_SHIM_BLOCK_H

#include <linux/types.h>

struct bio;
struct block_device;
struct gendisk;
struct mempool;
struct page;
struct queue_limits;

void drbd_shim_bio_inc_remaining(struct bio *bio);
bool drbd_shim_inside_submit(void);

u64 drbd_shim_bdev_sectors_done(struct block_device *bdev);
bool drbd_shim_bdev_read_only(struct block_device *bdev);
int drbd_shim_bdev_name(struct block_device *bdev, char *name, size_t size);

int drbd_shim_update_limits(struct gendisk *disk, bool frozen,
			    void (*change)(struct queue_limits *limits, void *context),
			    void *context);

void *drbd_shim_page_address(struct page *page);
unsigned long drbd_shim_ram_pages(void);
bool drbd_shim_mempool_full(struct mempool *pool);
int drbd_shim_page_sole_order(struct page *page);
void drbd_shim_page_put(struct page *page);
void drbd_shim_page_release(struct page *page, struct mempool *pool);

#endif

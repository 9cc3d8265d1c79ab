/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Input of bindgen, block half: the shim, and constants that are casts or composites in C.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/gfp.h>

#include "shim_block.h"

const blk_opf_t DRBD_CONST_REQ_SYNC = REQ_SYNC;
const blk_opf_t DRBD_CONST_REQ_META = REQ_META;
const blk_opf_t DRBD_CONST_REQ_PRIO = REQ_PRIO;
const blk_opf_t DRBD_CONST_REQ_IDLE = REQ_IDLE;
const blk_opf_t DRBD_CONST_REQ_FUA = REQ_FUA;
const blk_opf_t DRBD_CONST_REQ_PREFLUSH = REQ_PREFLUSH;
const blk_opf_t DRBD_CONST_REQ_RAHEAD = REQ_RAHEAD;
const blk_opf_t DRBD_CONST_REQ_BACKGROUND = REQ_BACKGROUND;
const blk_opf_t DRBD_CONST_REQ_NOWAIT = REQ_NOWAIT;
const blk_opf_t DRBD_CONST_REQ_POLLED = REQ_POLLED;
const blk_opf_t DRBD_CONST_REQ_NOUNMAP = REQ_NOUNMAP;

const blk_features_t DRBD_CONST_BLK_FEAT_WRITE_CACHE = BLK_FEAT_WRITE_CACHE;
const blk_features_t DRBD_CONST_BLK_FEAT_FUA = BLK_FEAT_FUA;
const blk_features_t DRBD_CONST_BLK_FEAT_ROTATIONAL = BLK_FEAT_ROTATIONAL;
const blk_features_t DRBD_CONST_BLK_FEAT_STABLE_WRITES = BLK_FEAT_STABLE_WRITES;
const blk_features_t DRBD_CONST_BLK_FEAT_IO_STAT = BLK_FEAT_IO_STAT;
const blk_flags_t DRBD_CONST_BLK_FLAG_WRITE_CACHE_DISABLED = BLK_FLAG_WRITE_CACHE_DISABLED;

const blk_mode_t DRBD_CONST_BLK_OPEN_READ = BLK_OPEN_READ;
const blk_mode_t DRBD_CONST_BLK_OPEN_WRITE = BLK_OPEN_WRITE;

const blk_status_t DRBD_CONST_BLK_STS_IOERR = BLK_STS_IOERR;

const gfp_t DRBD_CONST_GFP_PAGE_EAGER = GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN;
const gfp_t DRBD_CONST_GFP_PAGE_CHEAP =
	(GFP_NOIO & ~__GFP_DIRECT_RECLAIM) | __GFP_COMP | __GFP_NORETRY | __GFP_NOWARN;
const gfp_t DRBD_CONST_GFP_NOIO_ZERO = GFP_NOIO | __GFP_ZERO;
const gfp_t DRBD_CONST_GFP_MANY_ZERO =
	GFP_KERNEL | __GFP_ZERO | __GFP_RETRY_MAYFAIL | __GFP_NOWARN;
const gfp_t DRBD_CONST_GFP_ZEROES = GFP_KERNEL | __GFP_ZERO | __GFP_COMP;
const gfp_t DRBD_CONST_GFP_ATOMIC = GFP_ATOMIC;
const gfp_t DRBD_CONST_GFP_KERNEL = GFP_KERNEL;

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Input of bindgen: the kernel headers whose functions kernel::bindings lacks, the C shim, and
 * constants that are casts or composites in C. Write "const TYPE DRBD_CONST_X = X;" for such a one.
 */
#include <linux/blkdev.h>
#include <linux/crc32c.h>
#include <linux/reboot.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "bindings_block.h"
#include "bindings_net.h"
#include "bindings_user.h"
#include "shim.h"
#include "shim_faults.h"

const gfp_t DRBD_CONST_GFP_NOIO = GFP_NOIO;

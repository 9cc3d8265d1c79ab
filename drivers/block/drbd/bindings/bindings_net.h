/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Input of bindgen, the part for sockets, hashes, threads and timers.
 */
#include <linux/crc32.h>
#include <linux/tcp.h>

#include "shim_net.h"

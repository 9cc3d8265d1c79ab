/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Input of bindgen for the interfaces to user space: generic netlink, procfs, parameters.
 */
#include <linux/seq_file.h>
#include <net/genetlink.h>

#include "shim_user.h"

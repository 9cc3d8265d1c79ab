// SPDX-License-Identifier: GPL-2.0
/*
 * C shim: parameters of fault injection, as the C driver names them, and the dice.
 */
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/random.h>

#include "shim_faults.h"

#ifdef DRBD_FAULTS

static int enable_faults;
module_param(enable_faults, int, 0664);
MODULE_PARM_DESC(enable_faults, "Bit mask of the kinds of fault that are injected");

static int fault_rate;
module_param(fault_rate, int, 0664);
MODULE_PARM_DESC(fault_rate, "How many of a hundred chances become a fault");

static int fault_count;
module_param(fault_count, int, 0664);
MODULE_PARM_DESC(fault_count, "Faults that were injected");

static int fault_devs;
module_param(fault_devs, int, 0644);
MODULE_PARM_DESC(fault_devs, "Bit mask of the minors that have faults; 0 for all");

bool drbd_shim_fault_strikes(unsigned int minor, unsigned int kind)
{
	unsigned int devices = READ_ONCE(fault_devs);
	unsigned int rate = READ_ONCE(fault_rate);

	if (!(READ_ONCE(enable_faults) & BIT(kind & 31)))
		return false;
	if (devices && (minor > 31 || !(devices & BIT(minor))))
		return false;
	if (get_random_u32_below(100) >= rate)
		return false;
	/* Lost counts of simultaneous faults do not matter. */
	WRITE_ONCE(fault_count, READ_ONCE(fault_count) + 1);
	return true;
}

#else

bool drbd_shim_fault_strikes(unsigned int minor, unsigned int kind)
{
	return false;
}

#endif

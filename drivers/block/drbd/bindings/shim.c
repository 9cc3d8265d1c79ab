// SPDX-License-Identifier: GPL-2.0
/*
 * C shim of the module: what bindgen cannot bind (inlines, macros) and what module! cannot
 * declare (string and writable parameters, the version).
 */
#include <linux/lockdep.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/timer.h>
#include <linux/wait.h>

#include "shim.h"

MODULE_VERSION("8.4.11");

static unsigned int minor_count = 32;
module_param(minor_count, uint, 0444);
MODULE_PARM_DESC(minor_count, "Approximate number of drbd devices (1-255)");

static bool disable_sendpage;
module_param(disable_sendpage, bool, 0644);
MODULE_PARM_DESC(disable_sendpage, "Copy data into the socket instead of lending its pages");

static int proc_details;
module_param(proc_details, int, 0644);
MODULE_PARM_DESC(proc_details, "Level of detail in /proc/drbd");

static char usermode_helper[80] = "/sbin/drbdadm";
module_param_string(usermode_helper, usermode_helper, sizeof(usermode_helper), 0644);
MODULE_PARM_DESC(usermode_helper, "Program that is called for handlers");

unsigned int drbd_shim_param_minor_count(void)
{
	return minor_count;
}

bool drbd_shim_param_disable_sendpage(void)
{
	return READ_ONCE(disable_sendpage);
}

int drbd_shim_param_proc_details(void)
{
	return READ_ONCE(proc_details);
}

const char *drbd_shim_param_usermode_helper(void)
{
	return usermode_helper;
}

/* A waiter is on the queue before it looks at its condition, so the lock is only for those. */
void drbd_shim_wake_all(struct wait_queue_head *queue)
{
	if (wq_has_sleeper(queue))
		wake_up_all(queue);
}

bool drbd_shim_timer_pending(const struct timer_list *timer)
{
	smp_mb();
	return timer_pending(timer);
}

/* A lock that may be held while sleeping, as a mutex. */
void drbd_shim_lockdep_init(struct lockdep_map *map, const char *name, struct lock_class_key *key)
{
	lockdep_init_map_wait(map, name, key, 0, LD_WAIT_SLEEP);
}

void drbd_shim_lockdep_acquire(struct lockdep_map *map)
{
	might_sleep();
	lock_map_acquire(map);
}

void drbd_shim_lockdep_release(struct lockdep_map *map)
{
	lock_map_release(map);
}

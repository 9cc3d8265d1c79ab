/* SPDX-License-Identifier: GPL-2.0 */
/*
 * C shim: the kernel's inline functions and macros as functions, and the module parameters.
 * Nothing here decides anything.
 */
#ifndef DRBD_SHIM_H
#define DRBD_SHIM_H

#include <linux/types.h>

struct lock_class_key;
struct lockdep_map;
struct timer_list;
struct wait_queue_head;

unsigned int drbd_shim_param_minor_count(void);
bool drbd_shim_param_disable_sendpage(void);
int drbd_shim_param_proc_details(void);
const char *drbd_shim_param_usermode_helper(void);

void drbd_shim_wake_all(struct wait_queue_head *queue);
bool drbd_shim_timer_pending(const struct timer_list *timer);

void drbd_shim_lockdep_init(struct lockdep_map *map, const char *name, struct lock_class_key *key);
void drbd_shim_lockdep_acquire(struct lockdep_map *map);
void drbd_shim_lockdep_release(struct lockdep_map *map);

#endif

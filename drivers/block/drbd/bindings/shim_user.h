/* SPDX-License-Identifier: GPL-2.0 */
/*
 * C shim: inline functions and macros of the interfaces to user space.
 */
#ifndef DRBD_SHIM_USER_H
#define DRBD_SHIM_USER_H

#include <linux/types.h>

struct genl_family;
struct genl_info;
struct netlink_callback;
struct seq_file;
struct sk_buff;

int drbd_shim_skb_tailroom(const struct sk_buff *skb);
int drbd_shim_genlmsg_reply(struct sk_buff *skb, struct genl_info *info);
const struct genl_family *drbd_shim_dump_family(struct netlink_callback *cb);

void *drbd_shim_proc_create(const char *name, unsigned short mode,
			    int (*show)(struct seq_file *file, void *data), void *data);
void drbd_shim_proc_remove(void *entry);

size_t drbd_shim_copy_usermode_helper(char *to, size_t size);

#endif

// SPDX-License-Identifier: GPL-2.0
/*
 * C shim: inline functions and macros of the interfaces to user space.
 */
#include <linux/moduleparam.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/skbuff.h>
#include <linux/string.h>
#include <net/genetlink.h>

#include "shim.h"
#include "shim_user.h"

int drbd_shim_skb_tailroom(const struct sk_buff *skb)
{
	return skb_tailroom(skb);
}

int drbd_shim_genlmsg_reply(struct sk_buff *skb, struct genl_info *info)
{
	return genlmsg_reply(skb, info);
}

const struct genl_family *drbd_shim_dump_family(struct netlink_callback *cb)
{
	return genl_info_dump(cb)->family;
}

void *drbd_shim_proc_create(const char *name, unsigned short mode,
			    int (*show)(struct seq_file *file, void *data), void *data)
{
	return proc_create_single_data(name, mode, NULL, show, data);
}

void drbd_shim_proc_remove(void *entry)
{
	proc_remove(entry);
}

/* The parameter may be written through sysfs at any time: copy it under the parameters' lock. */
size_t drbd_shim_copy_usermode_helper(char *to, size_t size)
{
	ssize_t length;

	kernel_param_lock(THIS_MODULE);
	length = strscpy(to, drbd_shim_param_usermode_helper(), size);
	kernel_param_unlock(THIS_MODULE);
	return length < 0 ? 0 : length;
}

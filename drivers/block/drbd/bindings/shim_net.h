/* SPDX-License-Identifier: GPL-2.0 */
/*
 * C shim, the part for sockets, hashes and reclaim scopes. Nothing here decides anything but when
 * TCP acknowledges.
 */
#ifndef DRBD_SHIM_NET_H
#define DRBD_SHIM_NET_H

#include <linux/types.h>

struct bio_vec;
struct page;
struct shash_desc;
struct sock;
struct socket;
struct drbd_shim_sock_hook;

/* What happened on a hooked socket; the second argument of the hook's function. */
#define DRBD_SHIM_SOCK_DATA_READY	0u
#define DRBD_SHIM_SOCK_STATE_CHANGE	1u
#define DRBD_SHIM_SOCK_WRITE_SPACE	2u

void drbd_shim_sock_prepare(struct socket *sock);
bool drbd_shim_sock_has_bytes(struct socket *sock);
int drbd_shim_sock_arrived(struct socket *sock);
bool drbd_shim_sock_await_bytes(struct socket *sock, int bytes);
void drbd_shim_sock_set_sndtimeo(struct socket *sock, long jiffies);
void drbd_shim_sock_set_rcvtimeo(struct socket *sock, long jiffies);
void drbd_shim_sock_set_sndbuf(struct socket *sock, int bytes);
void drbd_shim_sock_set_rcvbuf(struct socket *sock, int bytes);
void drbd_shim_sock_set_priority(struct socket *sock, u32 priority);
int drbd_shim_sock_wmem_queued(struct socket *sock);
int drbd_shim_sock_sndbuf(struct socket *sock);
bool drbd_shim_sock_established(struct socket *sock);
struct drbd_shim_sock_hook *drbd_shim_sock_hook(struct socket *sock,
						void (*notify)(void *context, struct sock *sk,
							       unsigned int event),
						void *context);
bool drbd_shim_sock_offer(struct sock *sk,
			  size_t (*take)(void *context, const u8 *bytes, size_t len),
			  void *context);
void drbd_shim_sock_hasten_acks(struct socket *sock);
void drbd_shim_sock_unhook(struct socket *sock, struct drbd_shim_sock_hook *hook);

bool drbd_shim_sendpages_ok(struct page *page, size_t len, size_t offset);
void drbd_shim_bvec_set_virt(struct bio_vec *bvec, void *address, unsigned int len);

struct shash_desc *drbd_shim_hash_alloc(const char *name);
void drbd_shim_hash_free(struct shash_desc *desc);
unsigned int drbd_shim_hash_size(struct shash_desc *desc);
int drbd_shim_hash_setkey(struct shash_desc *desc, const u8 *key, unsigned int len);
int drbd_shim_hash_init(struct shash_desc *desc);
int drbd_shim_hash_update(struct shash_desc *desc, const u8 *data, unsigned int len);
int drbd_shim_hash_final(struct shash_desc *desc, u8 *digest);
bool drbd_shim_memneq(const void *a, const void *b, size_t len);

bool drbd_shim_is_reclaiming(void);
bool drbd_shim_stack_is_deep(void);
unsigned int drbd_shim_noio_save(void);
void drbd_shim_noio_restore(unsigned int flags);
unsigned int drbd_shim_noreclaim_save(void);
void drbd_shim_noreclaim_restore(unsigned int flags);

#endif

// SPDX-License-Identifier: GPL-2.0
/*
 * C shim for sockets, hashes and reclaim scopes: fields of struct sock, which the kernel's own
 * bindings keep opaque, and inline functions.
 */
#include <crypto/hash.h>
#include <crypto/utils.h>
#include <linux/bvec.h>
#include <linux/net.h>
#include <linux/sched/mm.h>
#include <linux/sched/task_stack.h>
#include <linux/slab.h>
#include <net/sock.h>
#include <net/tcp.h>
#include <net/tcp_states.h>

#include "shim_net.h"

/*
 * A socket that block I/O depends on: its allocations must not wait for block I/O, and the page
 * fragment of the current task may belong to a writer further up the same call chain.
 */
void drbd_shim_sock_prepare(struct socket *sock)
{
	struct sock *sk = sock->sk;

	sk->sk_reuse = SK_CAN_REUSE;
	sk->sk_allocation = GFP_NOIO;
	sk->sk_use_task_frag = false;
}

void drbd_shim_sock_set_sndtimeo(struct socket *sock, long jiffies)
{
	WRITE_ONCE(sock->sk->sk_sndtimeo, jiffies);
}

void drbd_shim_sock_set_rcvtimeo(struct socket *sock, long jiffies)
{
	WRITE_ONCE(sock->sk->sk_rcvtimeo, jiffies);
}

/* The administrator's size as it is: setsockopt() would clamp it to a limit meant for users. */
void drbd_shim_sock_set_sndbuf(struct socket *sock, int bytes)
{
	struct sock *sk = sock->sk;

	lock_sock(sk);
	WRITE_ONCE(sk->sk_sndbuf, bytes);
	sk->sk_userlocks |= SOCK_SNDBUF_LOCK;
	release_sock(sk);
}

void drbd_shim_sock_set_rcvbuf(struct socket *sock, int bytes)
{
	struct sock *sk = sock->sk;

	lock_sock(sk);
	WRITE_ONCE(sk->sk_rcvbuf, bytes);
	sk->sk_userlocks |= SOCK_RCVBUF_LOCK;
	release_sock(sk);
}

void drbd_shim_sock_set_priority(struct socket *sock, u32 priority)
{
	WRITE_ONCE(sock->sk->sk_priority, priority);
}

bool drbd_shim_sock_has_bytes(struct socket *sock)
{
	return !skb_queue_empty_lockless(&sock->sk->sk_receive_queue);
}

/* How many bytes can be received without waiting, as far as is seen without the lock. */
int drbd_shim_sock_arrived(struct socket *sock)
{
	const struct tcp_sock *tp = tcp_sk(sock->sk);

	return READ_ONCE(tp->rcv_nxt) - READ_ONCE(tp->copied_seq);
}

/*
 * Sleeps until so many bytes have arrived, without being woken for each frame of them; or, as far
 * as memory or the window do not let them come, until some have. May return early, and does at the
 * end of the connection. Returns false if nothing happened for the receive timeout.
 */
bool drbd_shim_sock_await_bytes(struct socket *sock, int bytes)
{
	DEFINE_WAIT_FUNC(wait, woken_wake_function);
	struct sock *sk = sock->sk;
	bool in_time = true;
	long timeo;

	lock_sock(sk);
	timeo = READ_ONCE(sk->sk_rcvtimeo);
	if (sk->sk_state == TCP_ESTABLISHED && !sk->sk_err &&
	    !(sk->sk_shutdown & RCV_SHUTDOWN) && !tcp_epollin_ready(sk, bytes)) {
		WRITE_ONCE(sk->sk_rcvlowat, bytes);
		add_wait_queue(sk_sleep(sk), &wait);
		in_time = sk_wait_event(sk, &timeo, tcp_epollin_ready(sk, bytes), &wait) || timeo;
		remove_wait_queue(sk_sleep(sk), &wait);
		WRITE_ONCE(sk->sk_rcvlowat, 1);
	}
	release_sock(sk);
	return in_time;
}

int drbd_shim_sock_wmem_queued(struct socket *sock)
{
	return READ_ONCE(sock->sk->sk_wmem_queued);
}

int drbd_shim_sock_sndbuf(struct socket *sock)
{
	return READ_ONCE(sock->sk->sk_sndbuf);
}

bool drbd_shim_sock_established(struct socket *sock)
{
	return READ_ONCE(sock->sk->sk_state) == TCP_ESTABLISHED;
}

/* What a hooked socket called before, and whom to tell now. sk_user_data points to it. */
struct drbd_shim_sock_hook {
	void (*data_ready)(struct sock *sk);
	void (*state_change)(struct sock *sk);
	void (*write_space)(struct sock *sk);
	void (*notify)(void *context, struct sock *sk, unsigned int event);
	void *context;
	/* Up to where TCP had acknowledged, and the segments with data that had arrived before. */
	u32 acked;
	u32 segments;
};

static void hook_data_ready(struct sock *sk)
{
	struct drbd_shim_sock_hook *hook;

	read_lock_bh(&sk->sk_callback_lock);
	hook = sk->sk_user_data;
	if (hook) {
		hook->data_ready(sk);
		hook->notify(hook->context, sk, DRBD_SHIM_SOCK_DATA_READY);
	}
	read_unlock_bh(&sk->sk_callback_lock);
}

static void hook_state_change(struct sock *sk)
{
	struct drbd_shim_sock_hook *hook;

	read_lock_bh(&sk->sk_callback_lock);
	hook = sk->sk_user_data;
	if (hook) {
		hook->state_change(sk);
		hook->notify(hook->context, sk, DRBD_SHIM_SOCK_STATE_CHANGE);
	}
	read_unlock_bh(&sk->sk_callback_lock);
}

static void hook_write_space(struct sock *sk)
{
	struct drbd_shim_sock_hook *hook;

	read_lock_bh(&sk->sk_callback_lock);
	hook = sk->sk_user_data;
	if (hook) {
		hook->write_space(sk);
		hook->notify(hook->context, sk, DRBD_SHIM_SOCK_WRITE_SPACE);
	}
	read_unlock_bh(&sk->sk_callback_lock);
}

struct drbd_shim_sock_hook *drbd_shim_sock_hook(struct socket *sock,
						void (*notify)(void *context, struct sock *sk,
							       unsigned int event),
						void *context)
{
	struct sock *sk = sock->sk;
	struct drbd_shim_sock_hook *hook;

	hook = kzalloc(sizeof(*hook), GFP_NOIO);
	if (!hook)
		return ERR_PTR(-ENOMEM);
	hook->notify = notify;
	hook->context = context;

	lock_sock(sk);
	write_lock_bh(&sk->sk_callback_lock);
	if (sk->sk_user_data) {
		write_unlock_bh(&sk->sk_callback_lock);
		release_sock(sk);
		kfree(hook);
		return ERR_PTR(-EBUSY);
	}
	hook->data_ready = sk->sk_data_ready;
	hook->state_change = sk->sk_state_change;
	hook->write_space = sk->sk_write_space;
	sk->sk_user_data = hook;
	sk->sk_data_ready = hook_data_ready;
	sk->sk_state_change = hook_state_change;
	sk->sk_write_space = hook_write_space;
	write_unlock_bh(&sk->sk_callback_lock);
	release_sock(sk);
	return hook;
}

/*
 * The socket lock keeps the protocol from being between its load of a callback and the call, and
 * the callback lock waits for a running one: after this, no hook function runs or will run.
 */
void drbd_shim_sock_unhook(struct socket *sock, struct drbd_shim_sock_hook *hook)
{
	struct sock *sk = sock->sk;

	lock_sock(sk);
	write_lock_bh(&sk->sk_callback_lock);
	sk->sk_data_ready = hook->data_ready;
	sk->sk_state_change = hook->state_change;
	sk->sk_write_space = hook->write_space;
	sk->sk_user_data = NULL;
	write_unlock_bh(&sk->sk_callback_lock);
	release_sock(sk);
	kfree(hook);
}

struct offer {
	size_t (*take)(void *context, const u8 *bytes, size_t len);
	void *context;
};

static int offer_skb(read_descriptor_t *desc, struct sk_buff *skb, unsigned int offset, size_t len)
{
	struct offer *offer = desc->arg.data;
	size_t taken = 0;
	u8 bytes[256];

	while (taken < len) {
		size_t part = min(len - taken, sizeof(bytes));
		size_t used;

		if (skb_copy_bits(skb, offset + taken, bytes, part))
			break;
		used = offer->take(offer->context, bytes, part);
		if (!used || used > part)
			break;
		taken += used;
	}
	if (taken < len)
		desc->count = 0;
	return taken;
}

/*
 * TCP acknowledges what is read: each small segment, or every second one if the session is
 * interactive. On a socket that brings nothing but answers of a few bytes that is a frame, an
 * interrupt and a call of the card for each of them, before who waits for the answer goes on.
 *
 * So acknowledgements wait for some segments, or for the timer of drbd_shim_sock_hasten_acks(). A
 * sender has ten on the way at first (initcwnd), seven after a loss; one that may have fewer than
 * these waits for the timer.
 */
#define SEGMENTS_UNACKED_MAX 4

static void gather_acks(struct sock *sk)
{
	struct drbd_shim_sock_hook *hook = sk->sk_user_data;
	struct inet_connection_sock *icsk = inet_csk(sk);
	const struct tcp_sock *tp = tcp_sk(sk);
	/* Counted where a segment arrives, even while somebody else has the socket. */
	u32 segments = READ_ONCE(tp->data_segs_in);

	if (hook->acked != tp->rcv_wup) {
		hook->acked = tp->rcv_wup;
		hook->segments = segments - 1;
	}
	if (segments - hook->segments >= SEGMENTS_UNACKED_MAX) {
		inet_csk_exit_pingpong_mode(sk);
		return;
	}
	inet_csk_enter_pingpong_mode(sk);
	smp_store_release(&icsk->icsk_ack.pending, icsk->icsk_ack.pending & ~ICSK_ACK_PUSHED2);
}

/*
 * Lets the timer for acknowledgements be a tick. The peer's TCP sends its last segment again two
 * round trips and 2 ms after it, if more than that one are not acknowledged: a longer timer would
 * have it do so for nothing.
 */
#define ACK_TICKS 1

void drbd_shim_sock_hasten_acks(struct socket *sock)
{
	WRITE_ONCE(inet_csk(sock->sk)->icsk_delack_max, ACK_TICKS);
}

/*
 * Offers what a socket has received, from the function it is hooked with, which has it locked. What
 * is not taken stays. Returns whether nothing is left.
 */
bool drbd_shim_sock_offer(struct sock *sk,
			  size_t (*take)(void *context, const u8 *bytes, size_t len),
			  void *context)
{
	struct offer offer = { .take = take, .context = context };
	read_descriptor_t desc = { .arg.data = &offer, .count = 1 };

	gather_acks(sk);
	tcp_read_sock(sk, &desc, offer_skb);
	return tcp_sk(sk)->copied_seq == tcp_sk(sk)->rcv_nxt;
}

bool drbd_shim_sendpages_ok(struct page *page, size_t len, size_t offset)
{
	return sendpages_ok(page, len, offset);
}

void drbd_shim_bvec_set_virt(struct bio_vec *bvec, void *address, unsigned int len)
{
	bvec_set_virt(bvec, address, len);
}

/* The transformation and the state of one computation in it. */
struct shash_desc *drbd_shim_hash_alloc(const char *name)
{
	struct crypto_shash *tfm = crypto_alloc_shash(name, 0, 0);
	struct shash_desc *desc;

	if (IS_ERR(tfm))
		return ERR_CAST(tfm);
	desc = kzalloc(sizeof(*desc) + crypto_shash_descsize(tfm), GFP_KERNEL);
	if (!desc) {
		crypto_free_shash(tfm);
		return ERR_PTR(-ENOMEM);
	}
	desc->tfm = tfm;
	return desc;
}

void drbd_shim_hash_free(struct shash_desc *desc)
{
	crypto_free_shash(desc->tfm);
	kfree_sensitive(desc);
}

unsigned int drbd_shim_hash_size(struct shash_desc *desc)
{
	return crypto_shash_digestsize(desc->tfm);
}

int drbd_shim_hash_setkey(struct shash_desc *desc, const u8 *key, unsigned int len)
{
	return crypto_shash_setkey(desc->tfm, key, len);
}

int drbd_shim_hash_init(struct shash_desc *desc)
{
	return crypto_shash_init(desc);
}

int drbd_shim_hash_update(struct shash_desc *desc, const u8 *data, unsigned int len)
{
	return crypto_shash_update(desc, data, len);
}

int drbd_shim_hash_final(struct shash_desc *desc, u8 *digest)
{
	return crypto_shash_final(desc, digest);
}

bool drbd_shim_memneq(const void *a, const void *b, size_t len)
{
	return crypto_memneq(a, b, len);
}

bool drbd_shim_is_reclaiming(void)
{
	return current->flags & PF_MEMALLOC;
}

/* Stacks grow down on all architectures with this driver. */
bool drbd_shim_stack_is_deep(void)
{
	unsigned long here = (unsigned long)__builtin_frame_address(0);
	unsigned long end = (unsigned long)task_stack_page(current);

	return here - end < THREAD_SIZE / 2;
}

unsigned int drbd_shim_noio_save(void)
{
	return memalloc_noio_save();
}

void drbd_shim_noio_restore(unsigned int flags)
{
	memalloc_noio_restore(flags);
}

unsigned int drbd_shim_noreclaim_save(void)
{
	return memalloc_noreclaim_save();
}

void drbd_shim_noreclaim_restore(unsigned int flags)
{
	memalloc_noreclaim_restore(flags);
}

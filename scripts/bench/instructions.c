// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin of QEMU's emulator: how often each block of instructions ran.
 *
 * Leaves a table in the file that its argument out= names, mapped and current while the guest runs:
 * one entry for each block, at a place that follows from its address. What the guest executed does
 * not depend on the load of the host.
 *
 * QEMU's header is not in every distribution's package; what is needed of its interface (version 1)
 * is declared here.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_info;

enum { ADD_U64 };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
					   void (*callback)(qemu_plugin_id_t id,
							    struct qemu_plugin_tb *block));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, int operation,
					      void *counter, uint64_t operand);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *block);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

/* The entry's layout is known to instructions.py as well. */
#define ENTRIES (1u << 19)

struct entry {
	uint64_t address;
	uint64_t length;
	uint64_t instructions;
};

static struct entry *table;

/* An entry is never given back; where the table is full, blocks share its last one. */
static struct entry *entry_of(uint64_t address, uint64_t length)
{
	uint64_t place = (address * 0x9e3779b97f4a7c15u + length) >> 45;

	for (unsigned int tries = 0; tries < ENTRIES; tries++) {
		struct entry *entry = &table[(place + tries) % ENTRIES];

		if (!entry->length) {
			entry->address = address;
			entry->length = length;
			return entry;
		}
		if (entry->address == address && entry->length == length)
			return entry;
	}
	return &table[ENTRIES - 1];
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
	uint64_t length = qemu_plugin_tb_n_insns(block);
	struct entry *entry = entry_of(qemu_plugin_tb_vaddr(block), length);

	(void)id;
	qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &entry->instructions, length);
}

__attribute__((visibility("default")))
int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv)
{
	const size_t size = ENTRIES * sizeof(struct entry);
	int file;

	(void)info;
	if (argc != 1 || strncmp(argv[0], "out=", 4))
		return -1;
	file = open(argv[0] + 4, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (file < 0 || ftruncate(file, size))
		return -1;
	table = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	if (table == MAP_FAILED)
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}

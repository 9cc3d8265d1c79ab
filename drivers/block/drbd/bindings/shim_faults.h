/* SPDX-License-Identifier: GPL-2.0 */
/*
 * C shim: fault injection, where the module is built with DRBD_FAULTS=y.
 */
#ifndef DRBD_SHIM_FAULTS_H
#define DRBD_SHIM_FAULTS_H

#include <linux/types.h>

#ifdef DRBD_FAULTS
#define DRBD_SHIM_HAS_FAULTS 1
#else
#define DRBD_SHIM_HAS_FAULTS 0
#endif

bool drbd_shim_fault_strikes(unsigned int minor, unsigned int kind);

#endif

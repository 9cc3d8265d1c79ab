# SPDX-License-Identifier: GPL-2.0
"""The runner itself, proven with the kernel's own driver and the stock tools."""

import pytest

from config import resource
from drbdvm import CommandFailed, KernelReport, TimedOut


@pytest.fixture(scope="module")
def pair(module_lab):
    fast = "resync-rate 100M; c-plan-ahead 0;"
    files = {"etc/drbd.conf": resource(disk_options=fast)}
    return module_lab.pair("t", "Shentar", module="c", tools="stock", disks=["16M"], files=files)


def test_commands_return_their_exit_code_and_both_outputs(pair):
    result = pair[0].run("echo out; echo err >&2; exit 3", check=False)
    assert (result.code, result.out, result.err) == (3, "out\n", "err\n")
    with pytest.raises(CommandFailed, match="ended with 3"):
        pair[0].run("exit 3")
    with pytest.raises(TimedOut):
        pair[0].run("sleep 30", timeout_s=1)
    assert pair[0].run("cat", stdin="typed").out == "typed"


def test_the_c_driver_syncs_two_guests(pair):
    t, shentar = pair
    for guest in pair:
        guest.run("modprobe drbd && drbdadm create-md --force r0 && drbdadm up r0")
    t.wait_until("drbdadm cstate r0", "^Connected$")
    assert t.run("drbdadm dstate r0").out == "Inconsistent/Inconsistent\n"
    t.run("drbdadm primary --force r0")
    t.wait_until("drbdadm dstate r0", "^UpToDate/UpToDate$")
    assert shentar.run("drbdadm role r0").out == "Secondary/Primary\n"
    t.run("echo written here | dd of=/dev/drbd0 bs=512 conv=sync,fsync 2>/dev/null")
    t.run("drbdadm secondary r0")
    shentar.run("drbdadm primary r0")
    assert shentar.run("head -c 12 /dev/drbd0").out == "written here"
    shentar.run("drbdadm secondary r0")


def test_a_cut_wire_is_noticed_and_a_plugged_one_heals(pair, module_lab):
    t, _ = pair
    module_lab.cut_wire()
    t.wait_until("drbdadm cstate r0", "^(WFConnection|Connecting)$")
    module_lab.plug_wire()
    t.wait_until("drbdadm cstate r0", "^Connected$")


def test_a_stalled_guest_answers_nothing_until_it_goes_on(pair):
    t, shentar = pair
    shentar.stop()
    assert t.run("ping -c 1 -W 1 Shentar", check=False).code != 0
    shentar.cont()
    t.wait_until("ping -c 1 -W 1 Shentar; true", " 0% packet loss")


def test_a_power_cycle_keeps_the_disks(pair):
    shentar = pair[1]
    shentar.power_cycle()
    shentar.run("modprobe drbd && drbdadm up r0")
    shentar.wait_until("drbdadm dstate r0", "^UpToDate/UpToDate$")


def test_a_kernel_warning_is_reported(lab):
    guest = lab.guest("t", module="c", tools="stock")
    guest.boot()
    with pytest.raises(KernelReport, match="WARNING: canary"):
        guest.run("echo 'WARNING: canary' > /dev/kmsg; sleep 5")
    guest.allow_report("another canary")
    guest.run("echo 'WARNING: another canary' > /dev/kmsg")

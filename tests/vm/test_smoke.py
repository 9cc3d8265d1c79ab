# SPDX-License-Identifier: GPL-2.0
"""Our module alone: it loads, says so, and leaves without a trace."""


def test_the_module_loads_and_unloads(lab):
    guest = lab.guest("t", module="ours", tools="stock")
    guest.boot()
    assert guest.run("modinfo -F version drbd").out == "8.4.11\n"
    assert "updates" in guest.run("modinfo -n drbd").out
    for _ in range(3):
        guest.run("modprobe drbd")
        assert guest.run("lsmod | grep -c ^drbd").out == "1\n"
        guest.run("rmmod drbd")
        assert guest.run("lsmod | grep -c ^drbd", check=False).out == "0\n"
    assert "drbd: initialized. Version: 8.4.11" in guest.dmesg()

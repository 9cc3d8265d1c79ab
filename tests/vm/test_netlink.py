# SPDX-License-Identifier: GPL-2.0
"""Netlink as no tool speaks it: malformed, unprivileged and many at a time.

Our driver answers with the C driver's errno and return codes, hides what is not for everybody, and
serves good requests afterwards; no kernel says a word about it.
"""

import re

import pytest

from differential import record
from differential.differences import NETLINK
from differential.messages import handmade, noise, probes, readable, verdicts
from differential.program import netlink_program
from drbdvm import Lab

PREPARE = """
modprobe drbd; cp -f /lib/drbd/drbdsetup-84 /usr/sbin/drbdsetup
drbdmeta --force 0 v08 /dev/vda internal create-md >/dev/null
drbdsetup new-resource r0; drbdsetup new-minor r0 0 0
drbdsetup attach 0 /dev/vda /dev/vda internal
drbdsetup connect r0 ipv4:192.0.2.1:31388 ipv4:192.0.2.2:31388 --cram-hmac-alg=sha1 \
    --shared-secret=not-for-everybody
"""
CLEAN = """
for name in $(drbdsetup show all 2>/dev/null | awk '/^resource/ {print $2}'); do
    drbdsetup down $name
done
true
"""
SEED = 20240611
WITHOUT = "setpriv --bounding-set=-{0} --inh-caps=-{0} -- "


def guest(lab: Lab, module: str):
    made = lab.guest("t", module=module, tools="stock", disks=["32M"],
                     files={"usr/sbin/netlink": netlink_program(),
                            "usr/sbin/udevadm": "#!/bin/sh\nexit 0\n"})
    made.boot()
    made.run("ip link set lo up; ip address add 192.0.2.1/24 dev lo; true")
    return made


def send(machine, messages: list[bytes], arguments: str = "") -> list[str]:
    machine.write("/tmp/messages", "".join(f"{data.hex()}\n" for data in messages))
    process = machine.spawn(f"netlink {arguments} </tmp/messages", timeout_s=500)
    process.close_input()
    result = process.wait()
    assert result.code == 0, result.err
    answers = [readable(line) for line in result.out.splitlines()]
    machine.check()
    return answers


def still_serves(machine) -> None:
    machine.run("drbdsetup status; drbdsetup events2 --now; drbdsetup new-resource after &&"
                "drbdsetup new-minor after 99 0 && drbdsetup down after")


@pytest.fixture(scope="module")
def machine(module_lab):
    return guest(module_lab, "ours")


@pytest.fixture
def ours(machine):
    """Our driver with one resource, whatever was there before."""
    machine.run(CLEAN + PREPARE)
    return machine


def ask(machine) -> dict[str, str]:
    """What a driver answers to all malformed messages."""
    messages, rows = handmade(), probes()
    asked = [*messages.values(), *(data for row in rows.values() for data in row)]
    answers = iter(send(machine, asked))
    found = {title: next(answers) for title in messages}
    return found | {title: verdicts([next(answers) for _ in row]) for title, row in rows.items()}


def test_malformed_messages_have_the_c_drivers_answers(ours):
    expected, answers = record.read("netlink"), ask(ours)
    assert list(answers) == sorted(expected, key=list(answers).index)
    complaints, used = [], set()
    for title, mine in answers.items():
        theirs = expected[title]
        if theirs == mine:
            continue
        rule = next((rule for rule in NETLINK if re.search(rule.command, title)
                     and re.search(rule.line, f"{theirs} -> {mine}")), None)
        used.add(rule)
        if rule is None:
            complaints.append(f"{title}\n    - {theirs}\n    + {mine}")
    complaints += [f"no longer differs, remove it from the list: {rule}"
                   for rule in NETLINK if rule not in used]
    assert not complaints, f"{len(complaints)} answers differ:\n" + "\n".join(complaints)
    still_serves(ours)


@pytest.mark.usefixtures("oracle")
def test_the_record_is_what_the_c_driver_answers(request):
    with Lab(keep="netlink-c") as lab:
        theirs = guest(lab, "c")
        theirs.run(PREPARE)
        answers = ask(theirs)
    if request.config.getoption("record"):
        record.write("netlink", answers)
    assert record.read("netlink") == answers


def test_secrets_are_for_the_administrator(ours):
    assert "not-for-everybody" in ours.run("drbdsetup show r0").out
    shown = ours.run(WITHOUT.format("sys_admin") + "drbdsetup show r0").out
    assert "cram-hmac-alg" in shown and "not-for-everybody" not in shown
    events = ours.spawn("timeout 5 drbdsetup events all 2>&1 | cat", timeout_s=60)
    ours.run("sleep 1; drbdsetup suspend-io 0; drbdsetup resume-io 0")
    assert "not-for-everybody" not in events.wait().out


def test_others_may_look_and_nothing_else(ours):
    without = WITHOUT.format("net_admin")
    assert ours.run(without + "drbdsetup status r0").out == ours.run("drbdsetup status r0").out
    refused = ours.run(without + "drbdsetup secondary 0", check=False)
    assert refused.code != 0
    nobody = "setpriv --reuid=65534 --clear-groups -- "
    assert "not-for-everybody" not in ours.run(nobody + "drbdsetup show r0", check=False).out
    assert ours.run(nobody + "drbdsetup primary 0 --force", check=False).code != 0
    assert ours.run("drbdsetup role 0").out == "Secondary/Unknown\n"


def test_noise_from_many_threads_does_no_harm(ours):
    send(ours, noise(SEED, 1500), "6")
    ours.run("""
        for round in 1 2 3; do
            for n in 1 2 3 4 5 6; do
                (drbdsetup new-resource c$n; drbdsetup new-minor c$n 1$n 0; drbdsetup status;
                 drbdsetup events2 --now; drbdsetup down c$n) >/dev/null 2>&1 &
            done
            wait
        done
        drbdsetup show all | grep -c 'resource c'; true""")
    still_serves(ours)
    ours.run(CLEAN)
    ours.run("rmmod drbd")

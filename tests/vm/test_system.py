# SPDX-License-Identifier: GPL-2.0
"""What drbd-utils brings for a whole system works with our driver: udev's rules name the devices,
and the OCF agent starts, promotes, demotes, fails over and stops as it does with the C driver.

There is no cluster: the test calls the agent as a cluster's manager would, and a stand-in notes the
scores that it gives.
"""

import pytest

from drbdvm import Lab
from scenario import Flavour, life, node_pair

AGENT = "/usr/lib/ocf/resource.d/linbit/drbd"
SUCCESS, NOT_RUNNING, RUNNING_MASTER = 0, 7, 8
CONF = life.conf()
CRM_MASTER = """#!/bin/bash
# Remembers the score that would decide who is promoted: -v SCORE sets it, -D deletes it, -G tells.
while [ $# -gt 0 ]; do
    case $1 in
    -v) echo "$2" > /run/score; shift ;;
    -D) rm -f /run/score ;;
    -G) cat /run/score 2>/dev/null ;;
    esac
    shift
done
"""
# What the manager tells an agent; Spec: the agent's own meta-data.
TOLD = {
    "OCF_ROOT": "/usr/lib/ocf",
    "OCF_RESOURCE_INSTANCE": "p_drbd_r0",
    "OCF_RESOURCE_TYPE": "drbd",
    "OCF_RESKEY_drbd_resource": "r0",
    "OCF_RESKEY_crm_feature_set": "3.19.0",
    "OCF_RESKEY_CRM_meta_clone_max": 2,
    "OCF_RESKEY_CRM_meta_clone_node_max": 1,
    "OCF_RESKEY_CRM_meta_master_max": 1,
    "OCF_RESKEY_CRM_meta_master_node_max": 1,
    "OCF_RESKEY_CRM_meta_notify": "true",
    "OCF_RESKEY_CRM_meta_timeout": 60000,
}


@pytest.fixture(scope="module")
def nodes(flavour):
    """A pair with udev running; t has our tools, Shentar stock drbd-utils."""
    kinds = (Flavour(flavour.module, "ours"), Flavour(flavour.module, "stock"))
    with Lab(keep="test_system") as lab:
        pair = node_pair(lab, kinds, CONF, disks=[life.DISK], system=True,
                         files={"usr/sbin/crm_master": CRM_MASTER})
        for node in pair:
            node.run("mkdir -p /run/udev /run/resource-agents; "
                     "/usr/lib/systemd/systemd-udevd --daemon")
            node.guest.wait_until("udevadm control --ping && echo answers", "answers")
        life.bring_up(pair)
        life.first_sync(*pair)
        yield pair


def agent(node, action, expected=SUCCESS, **told):
    """Call the agent and check its exit code; what it said."""
    words = " ".join(f"{name}={value}" for name, value in {**TOLD, **told}.items())
    result = node.run(f"{words} {AGENT} {action}", check=False, timeout_s=180)
    assert result.code == expected, f"{action}: {result.code}\n{result.out}{result.err}"
    return result.out


def score(node):
    """The score by which the manager would choose whom to promote; none if it may not."""
    return node.run("cat /run/score 2>/dev/null; true").out.strip() or None


def links(node):
    return set(node.run("udevadm settle; cd /dev/drbd 2>/dev/null && find by-* -type l; true")
               .out.split())


def test_udev_names_the_devices(nodes):
    for node in nodes:
        assert {"by-res/r0", "by-disk/vda"} <= links(node)
        for link in links(node):
            assert node.run(f"readlink -f /dev/drbd/{link}").out.strip() == "/dev/drbd0"
    t, shentar = nodes
    t.secondary()
    for node in (shentar, t):
        node.down()
        assert links(node) == set()
        node.up()
        assert {"by-res/r0", "by-disk/vda"} <= links(node)
    for node in nodes:
        node.wait_synced()


def test_the_agent_describes_itself_and_finds_its_programs(nodes):
    for node in nodes:
        node.down()
        assert '<resource-agent name="drbd"' in agent(node, "meta-data")
        agent(node, "validate-all")
        # The version that the agent asks for when the driver is not loaded.
        assert node.run("modinfo -F version drbd").out.startswith("8.4.")


def test_the_agent_starts_promotes_demotes_and_stops(nodes):
    t, shentar = nodes
    for node in nodes:
        node.run("rmmod drbd; rm -f /run/score")
        agent(node, "monitor", NOT_RUNNING)
        assert score(node) is None
    agent(t, "start")
    assert score(t) in ("5", "10", "1000")
    agent(shentar, "start")
    for node in nodes:
        node.wait_synced()
        agent(node, "notify", OCF_RESKEY_CRM_meta_notify_type="post",
              OCF_RESKEY_CRM_meta_notify_operation="start",
              OCF_RESKEY_CRM_meta_notify_start_uname="'t Shentar'")
        agent(node, "monitor", SUCCESS)
        assert score(node) == "10000"
    agent(t, "promote")
    agent(t, "monitor", RUNNING_MASTER)
    agent(shentar, "monitor", SUCCESS)
    t.write("clustered", 1024, 64)
    agent(t, "demote")
    agent(t, "monitor", SUCCESS)
    agent(shentar, "promote")
    assert shentar.holds("clustered", 1024, 64)
    agent(t, "stop")
    agent(t, "monitor", NOT_RUNNING)
    assert score(t) is None
    agent(shentar, "stop")
    agent(shentar, "monitor", NOT_RUNNING)


def test_the_agent_fails_over(nodes):
    t, shentar = nodes
    for node in nodes:
        agent(node, "start")
    for node in nodes:
        node.wait_synced()
    agent(t, "promote")
    t.write("before", 2048, 64)
    t.guest.kill()
    shentar.wait_state(r"cs:\w+ ro:Secondary/Unknown", life.OUTAGE_TIMEOUT_S)
    agent(shentar, "monitor", SUCCESS)
    assert score(shentar) == "1000"
    agent(shentar, "promote")
    agent(shentar, "monitor", RUNNING_MASTER)
    assert shentar.holds("before", 2048, 64)
    agent(shentar, "stop")

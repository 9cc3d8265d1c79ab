# SPDX-License-Identifier: GPL-2.0
"""Commands on both nodes at the same moment: each ends, and the nodes agree about what came of it.

One node decides conflicts (Spec §1.23); its change goes first, the other's is refused, or done
afterwards. Two of them run every day; with `--long` all do, more often, and with the C driver on
either side, too, and with itself, as the control.
"""

import pytest

from config import resource
from scenario import Flavour, life, node_pair, same_data

CONF = resource(net=life.PATIENCE, disk_options=life.FAST)
ROUNDS, LONG_ROUNDS = 3, 12
EVERY_DAY = ("primary, primary", "invalidate, invalidate")
# A change whose turn does not come is tried for 30 s.
COMMAND_TIMEOUT_S = 90
PAIRS = {"ours-ours": ("ours", "ours"), "ours-C": ("ours", "c"), "C-ours": ("c", "ours"),
         "C-C": ("c", "c")}
# What either node does at the same moment; `$peer` stands for the addresses of the connection.
CROSSINGS = {
    "primary, primary": ("primary 0", "primary 0"),
    "secondary, primary": ("secondary 0", "primary 0"),
    "disconnect, disconnect": ("disconnect $peer", "disconnect $peer"),
    "primary, disconnect": ("primary 0", "disconnect $peer"),
    "invalidate, invalidate": ("invalidate 0", "invalidate 0"),
    "invalidate, invalidate-remote": ("invalidate 0", "invalidate-remote 0"),
    "invalidate, primary": ("invalidate 0", "primary 0"),
    "detach, detach": ("detach 0", "detach 0"),
    "detach, primary": ("detach 0", "primary 0"),
    "verify, verify": ("verify 0", "verify 0"),
    "verify, invalidate": ("verify 0", "invalidate 0"),
    "pause-sync, resume-sync": ("pause-sync 0", "resume-sync 0"),
    "down, down": ("down r0", "down r0"),
}


@pytest.fixture(scope="module", params=PAIRS)
def nodes(request, module_lab):
    if request.param != "ours-ours" and not request.config.getoption("long"):
        pytest.skip("runs with --long")
    flavours = tuple(Flavour(module, "stock") for module in PAIRS[request.param])
    for guest in module_lab.guests:
        guest.kill()
    module_lab.guests.clear()
    nodes = node_pair(module_lab, flavours, CONF, disks=[life.DISK])
    for node in nodes:
        node.configure(CONF.replace("protocol C;", "protocol C; verify-alg crc32c;"))
    life.bring_up(nodes)
    nodes[0].run("drbdsetup new-current-uuid 0 --clear-bitmap")
    for node in nodes:
        node.wait_synced()
    return nodes


def put_right(nodes):
    """Connected, both UpToDate, both Secondary."""
    for node in nodes:
        node.run("drbdadm up r0 2>/dev/null; drbdadm attach r0 2>/dev/null; "
                 "drbdadm adjust r0; drbdsetup resume-sync 0; drbdsetup secondary 0", check=False)
    for node in nodes:
        node.wait_state("cs:Connected ro:Secondary/Secondary ds:UpToDate/UpToDate")


@pytest.mark.parametrize("crossing", CROSSINGS)
def test_commands_that_cross(nodes, crossing, request):
    is_long = request.config.getoption("long")
    if crossing not in EVERY_DAY and not is_long:
        pytest.skip("runs with --long")
    results = []
    for turn in range(LONG_ROUNDS if is_long else ROUNDS):
        put_right(nodes)
        if crossing.startswith("secondary"):
            nodes[0].run("drbdsetup primary 0")
        # Now the one, now the other is a little earlier.
        scripts = []
        for index, (node, command) in enumerate(zip(nodes, CROSSINGS[crossing])):
            local, remote = (f"ipv4:{each.guest.address}:7788" for each in
                             (node, nodes[1 - index]))
            ahead = (turn // 2) * 0.01 if turn % 2 == index else 0
            scripts.append(f"sleep {ahead}; drbdsetup "
                           + command.replace("$peer", f"{local} {remote}"))
        running = [node.guest.spawn(script, timeout_s=COMMAND_TIMEOUT_S)
                   for node, script in zip(nodes, scripts)]
        ended = [process.wait() for process in running]
        results.append(tuple(result.code for result in ended))
        for result in ended:
            assert result.code == 0 or result.err.strip(), "it was refused without a word"
        if "primary" in crossing:
            roles = [node.run("drbdadm role r0", check=False).out for node in nodes]
            assert sum(role.startswith("Primary") for role in roles) < 2 or \
                "disconnect" in crossing, f"both are Primary: {roles}"
    print(crossing, results)
    put_right(nodes)
    same_data(*nodes, nodes[0].size_bytes())

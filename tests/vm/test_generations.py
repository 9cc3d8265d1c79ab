# SPDX-License-Identifier: GPL-2.0
"""Our driver and the C driver compare the same generations and come to what two C drivers came to.

The record of the C driver is checked against the engine by its own tests; here are the drivers
around it: what they send, what they do with the verdict, and what is on both disks afterwards.
Runs with `--long`: a hundred cases take some three minutes on emulated guests.
"""

from pathlib import Path

import pytest

from scenario import generations

RECORD = Path(__file__).resolve().parents[1] / "engine" / "data" / "generations.txt"


@pytest.fixture(scope="module")
def recorded(request):
    if not request.config.getoption("--long"):
        pytest.skip("runs with --long")
    return generations.read(RECORD)


@pytest.mark.parametrize("modules", [("ours", "c")], ids="_with_".join)
def test_both_nodes_do_what_the_c_driver_did(lab, recorded, modules):
    guests = generations.machines(lab, modules)
    differences = []
    for first in range(0, len(recorded), generations.BATCH):
        batch = recorded[first:first + generations.BATCH]
        outcomes = generations.play(guests, [case for case, _ in batch])
        for wanted, sides in zip(batch, outcomes):
            differences += generations.differences(wanted, sides)
        lab.check()
    assert not differences, "\n".join(differences)

# SPDX-License-Identifier: GPL-2.0
"""The manual from its first to its last step, with every line that it promises."""

import pytest

from drbdvm import Lab
from scenario import Flavour, walkthrough
from scenario.story import Story

# At the manual's 50 MiB/s long enough to make a file system meanwhile.
DISK = "1G"


@pytest.fixture(scope="module", params=["ours", "stock"])
def machines(flavour, request):
    """The manual's machines, with our tools and then with stock drbd-utils."""
    with Lab(keep=f"test_walkthrough-{request.param}") as lab:
        yield walkthrough.machines(lab, Flavour(flavour.module, request.param), DISK)


@pytest.mark.parametrize("step", walkthrough.STEPS, ids=lambda step: step.__name__)
def test_the_manual(machines, step):
    step(Story(), *machines)

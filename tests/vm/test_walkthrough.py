# SPDX-License-Identifier: GPL-2.0
"""The manual from its first to its last step, with every line that it promises."""

import pytest

from scenario import walkthrough
from scenario.story import Story


@pytest.fixture(scope="module")
def machines(module_lab, flavour):
    return walkthrough.machines(module_lab, flavour, "512M")


@pytest.mark.parametrize("step", walkthrough.STEPS, ids=lambda step: step.__name__)
def test_the_manual(machines, step):
    step(Story(), *machines)

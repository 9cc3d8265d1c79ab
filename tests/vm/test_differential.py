# SPDX-License-Identifier: GPL-2.0
"""Every command, good, refused and malformed, has the same answer as with the C driver and the
stock tools: exit code, output, and what the nodes say of themselves afterwards.

The few differences that are meant stand in differential/differences.py, each with its reason.
"""

import difflib
import os
import re

import pytest

from config import resource
from differential import HERE, play, read_script, record
from differential.differences import DIFFERENCES
from drbdvm import Lab

# User Mode Linux has several processors, and its disks other limits.
pytestmark = pytest.mark.skipif(os.environ.get("DRBD_LANE") in ("um", "umdebug"),
                                reason="the record is of guests under QEMU")
SCRIPTS = sorted(path.stem for path in HERE.glob("*.steps"))
DISKS = ["32M", "32M"]


def conf() -> str:
    return resource(net="ping-timeout 100; timeout 150; verify-alg md5;",
                    disk_options="resync-rate 200M; c-plan-ahead 0;")


class Stage:
    """A pair of guests with one driver and one set of tools, booted when it is first needed."""

    def __init__(self, module: str, tools: str) -> None:
        self.module, self.tools = module, tools
        self._lab: Lab | None = None

    def play(self, script: str) -> dict[int, str]:
        """The answers to a script."""
        try:
            guests = self._guests()
            answers = play(HERE / f"{script}.steps", guests)
            self._lab.check()
            for guest in guests.values():
                guest.run("drbdsetup down r0; drbdsetup down r1; rm -f /var/lib/drbd/*;"
                          "dd if=/dev/zero of=/dev/vda bs=1M; dd if=/dev/zero of=/dev/vdb bs=1M; true")
            return answers
        except BaseException:
            self.close()
            raise

    def _guests(self) -> dict:
        if self._lab is None:
            self._lab = Lab(keep=f"differential-{self.module}-{self.tools}")
            files = {"etc/drbd.conf": conf(), "usr/sbin/udevadm": "#!/bin/sh\nexit 0\n"}
            pair = self._lab.pair(module=self.module, tools=self.tools, disks=DISKS, files=files)
            # The stock drbdsetup is a program that looks for the one it then becomes.
            straight = "cp -f /lib/drbd/drbdsetup-84 /usr/sbin/drbdsetup"
            for guest in pair:
                if self.module == "c":
                    # Some refused attaches of the C driver make its kernel warn. It is the oracle
                    # of what is answered, and not under test.
                    guest.allow_report("")
                guest.run(f"modprobe drbd; {straight if self.tools == 'stock' else ''}")
        return {guest.name: guest for guest in self._lab.guests}

    def close(self) -> None:
        if self._lab is not None:
            self._lab.close()
            self._lab = None


@pytest.fixture(scope="module")
def stage():
    """Makes stages; each exists once."""
    known: dict[tuple[str, str], Stage] = {}
    yield lambda module, tools: known.setdefault((module, tools), Stage(module, tools))
    for made in known.values():
        made.close()


def compare(script: str, theirs: dict, ours: dict, about: str) -> None:
    """Fails with every step whose answers differ otherwise than the list says."""
    rules = [rule for rule in DIFFERENCES if rule.about == about and rule.script == script]
    used, complaints = set(), []
    for step in read_script(HERE / f"{script}.steps"):
        pair = [answers.get(step.number, "").splitlines() for answers in (theirs, ours)]
        changed = [line for line in difflib.ndiff(*pair) if line[:2] in ("- ", "+ ")]
        for rule in rules:
            if changed and re.search(rule.command, step.command):
                kept = [line for line in changed if not re.search(rule.line, line)]
                if len(kept) < len(changed):
                    used.add(rule)
                changed = kept
        if changed:
            complaints.append(f"{step.node}:{step.number}: {step.command}\n    "
                              + "\n    ".join(changed))
    stale = [rule for rule in rules if rule not in used]
    complaints += [f"no longer differs, remove it from the list: {rule}" for rule in stale]
    differ = "\n".join(complaints)
    assert not complaints, f"{len(complaints)} steps differ (- C, + ours):\n{differ}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_our_driver_answers_as_the_c_driver(stage, script):
    theirs = record.read_steps(script, read_script(HERE / f"{script}.steps"))
    compare(script, theirs, stage("ours", "stock").play(script), "driver")


@pytest.mark.usefixtures("oracle")
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_record_is_what_the_c_driver_answers(stage, script, request):
    steps = read_script(HERE / f"{script}.steps")
    answers = stage("c", "stock").play(script)
    if request.config.getoption("record"):
        record.write_steps(script, steps, answers)
    recorded = record.read_steps(script, steps)
    differ = [f"{step.number}: {step.command}\n- {recorded[step.number]}\n+ {answers[step.number]}"
              for step in steps if recorded.get(step.number) != answers.get(step.number)]
    assert not differ, "\n".join(differ)

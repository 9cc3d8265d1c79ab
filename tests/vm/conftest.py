# SPDX-License-Identifier: GPL-2.0
"""Fixtures of the tests on booted kernels.

After every test the kernel logs of all guests in use are looked at; a report of trouble fails the
test that was running, also when the guests live on for the next test.
"""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from drbdvm import Lab, live_labs  # noqa: E402
from scenario import Flavour  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("drbd")
    group.addoption("--module", choices=("ours", "c"), default="ours",
                    help="the driver under test; c proves the test itself")
    group.addoption("--tools", choices=("ours", "stock"), default="stock",
                    help="the tools under test")
    group.addoption("--long", action="store_true",
                    help="also what takes too long for every day, and the controls")
    group.addoption("--record", action="store_true",
                    help="with --long: write down what the C driver answers")
    group.addoption("--cuts", type=int, default=6, help="how many power cuts under writes")
    group.addoption("--cut-seed", type=int, default=1, help="what makes their moments differ")
    group.addoption("--evil-packets", type=int, default=150,
                    help="how many packets the evil peer sends")
    group.addoption("--evil-seed", type=int, default=1, help="what makes its runs differ")


@pytest.fixture(scope="session")
def flavour(request) -> Flavour:
    """The driver and the tools that a run tests on all nodes."""
    return Flavour(request.config.getoption("module"), request.config.getoption("tools"))


@pytest.fixture(scope="session")
def oracle(request) -> None:
    """For tests that run only when they are asked for."""
    if not request.config.getoption("long"):
        pytest.skip("takes minutes; give --long")


def _name(request: pytest.FixtureRequest) -> str:
    return re.sub(r"[^\w.-]+", "_", request.node.name)


@pytest.fixture
def lab(request):
    """A lab for one test; consoles are kept in build/vm/TEST/."""
    with Lab(keep=_name(request)) as made:
        yield made


@pytest.fixture(scope="module")
def module_lab(request):
    """A lab that all tests of a file share; consoles are kept in build/vm/FILE/."""
    with Lab(keep=_name(request)) as made:
        yield made


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    outcome = yield
    if outcome.excinfo is None:
        try:
            for used in live_labs():
                used.check_at_rest()
        except BaseException as trouble:
            outcome.force_exception(trouble) if hasattr(outcome, "force_exception") \
                else _fail(outcome, trouble)


def _fail(outcome, trouble: BaseException) -> None:
    """Older pluggy has no force_exception."""
    outcome._excinfo = (type(trouble), trouble, trouble.__traceback__)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for used in live_labs():
            for guest in used.guests:
                report.sections.append((f"console of {guest.name}", guest.log()[-4000:]))

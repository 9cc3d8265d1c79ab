# SPDX-License-Identifier: GPL-2.0
"""What the guests' processors do while a row runs, by looking at them again and again.

Instructions are not time: on an emulated processor a call of a device, or of the interrupt
controller, takes as long as thousands of them.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable

from instructions import Symbols
from machines import Pair
from rows import Row

# Each look makes the processor stop for a moment.
_PAUSE_S = 0.01
_KINDS = ("idle", "calls of devices", "interrupt controller and its timer", "drbd", "programs",
          "all else")


def _kind(function: str, module: str) -> str:
    if function.startswith("iowrite"):
        return "calls of devices"
    if function.startswith(("native_apic_", "lapic_")):
        return "interrupt controller and its timer"
    return {"drbd": "drbd", "user": "programs"}.get(module, "all else")


class _Watch:
    """Looks at a guest until it is told that this is enough."""

    def __init__(self, guest) -> None:
        self._guest, self._symbols = guest, Symbols(guest)
        self.seen = Counter()
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._enough.wait(_PAUSE_S):
            place = self._guest.place()
            self.seen["idle" if place is None else _kind(*self._symbols.find(place))] += 1

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._enough.set()
        self._thread.join()


def report(pairs: dict[str, Pair], rows: list[Row], runs: int, say: Callable[[str], None]) -> None:
    """Print for each row what share of its time each of the processors spends on what."""
    for row in rows:
        seen = {}
        for driver, pair in pairs.items():
            with pair.running():
                # The state that a run is made in is not its time.
                row.measure(pair)
                seen[driver] = [Counter(), Counter()]
                for _ in range(runs):
                    time.sleep(0.2)
                    with contextlib.ExitStack() as stack:
                        watches = [stack.enter_context(_Watch(guest)) for guest in pair.guests]
                        row.measure(pair)
                    for sums, watch in zip(seen[driver], watches):
                        sums.update(watch.seen)
        columns = [(role, driver) for role in (0, 1) for driver in seen]
        say(f"\n{row.title}: per cent of the time\n\n| | " + " | ".join(
            f"{('primary', 'secondary')[role]}: {'C' if driver == 'c' else driver}"
            for role, driver in columns) + " |\n| --- |" + " --- |" * len(columns))
        for kind in _KINDS:
            say(f"| {kind} | " + " | ".join(
                f"{100 * seen[driver][role][kind] / max(1, seen[driver][role].total()):.1f}"
                for role, driver in columns) + " |")
        say("| looks | " + " | ".join(str(seen[driver][role].total())
                                      for role, driver in columns) + " |")

# SPDX-License-Identifier: GPL-2.0
"""Plays a script of commands on two guests and records how each of them ended.

A script (`*.steps`) has one step a line:

    # a comment
    @t                          what follows runs on this node
    COMMAND                     is recorded: exit code, both outputs, and what the node says of
                                itself afterwards unless the command only asks
    ~ COMMAND                   is recorded without the state, which may be on its way
    state                       only the state
    quiet COMMAND               is run, not recorded
    until REGEX: COMMAND        is repeated until its output matches, not recorded

The state is `drbdsetup show all` and what /proc/drbd says of states. UUIDs are random, and so
replaced by letters in the order of their appearance in the chapter.
"""

import re
import string
from dataclasses import dataclass
from pathlib import Path

from drbdvm import Guest

HERE = Path(__file__).resolve().parent
STEP_LIMIT_S = 60

# A step prints RECORD, then its fields, each ended with FIELD.
RECORD, FIELD = "\x1e", "\x1f"

# Programs are slow to start in an emulated guest, so the shell does what it can by itself.
HARNESS = r"""
state() {
    drbdsetup show all </dev/null 2>&1
    while read -r line; do
        [[ $line =~ cs:.*ds:[^\ ]*(\ [A-C])?\ [a-z-]* ]] && echo "$BASH_REMATCH"
    done </proc/drbd
}
step() {  # number, whether the state is wanted
    code=0
    ( eval "$script" ) </dev/null >/tmp/step.out 2>/tmp/step.err || code=$?
    printf '\036%s\037%s\037%s\037%s\037' "$1" "$code" "$(</tmp/step.out)" "$(</tmp/step.err)"
    if [ "$2" = yes ]; then state; fi
    printf '\037'
}
quiet() {
    ( eval "$script" ) </dev/null >/tmp/step.out 2>&1
}
until_matches() {  # number, regex
    for _ in {1..300}; do
        ( eval "$script" ) </dev/null >/tmp/step.out 2>&1
        [[ $(</tmp/step.out) =~ $2 ]] && return
        sleep 0.2
    done
    printf '\036%s\037timeout\037%s\037\037' "$1" "$(</tmp/step.out)"
    state
    printf '\037'
}
"""

# Commands after which everything is as before.
ASKING = re.compile(r"(?:timeout \S+ )?(?:cat|dd|drbdmeta|drbd(?:setup|adm)(?: (?:show|status|sh-\S+|"
                    r"role|[cd]state|get-gi|show-gi|events2?|wait-\S+|dump|check-resize|--help|help)"
                    r"|$)\b)|drbd(?:setup|adm)$")


@dataclass(frozen=True)
class Step:
    """One line of a script."""

    number: int
    node: str
    kind: str
    command: str
    pattern: str = ""

    def shell(self) -> str:
        """The call of the harness that plays it."""
        quoted = "script=" + _quote(self.command)
        if self.kind == "quiet":
            return f"{quoted}; quiet"
        if self.kind == "until":
            return f"{quoted}; until_matches {self.number} {_quote(self.pattern)}"
        return f"{quoted}; step {self.number} {'no' if self.kind == 'brief' else 'yes'}"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def read_script(path: Path) -> list[Step]:
    steps = []
    node = "t"
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("@"):
            node = line[1:]
        elif line.startswith("quiet "):
            steps.append(Step(number, node, "quiet", line[6:]))
        elif line.startswith("until "):
            pattern, _, command = line[6:].partition(": ")
            steps.append(Step(number, node, "until", command, pattern))
        elif line.startswith("~ "):
            steps.append(Step(number, node, "brief", line[2:]))
        elif line == "state":
            steps.append(Step(number, node, "full", ":"))
        else:
            kind = "brief" if ASKING.match(line) else "full"
            steps.append(Step(number, node, kind, line))
    return steps


class _Letters:
    """Replaces what is random by what it is the same as."""

    UUID = re.compile(r"\b[0-9A-Fa-f]{16}\b")

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def __call__(self, match: re.Match) -> str:
        value = int(match.group(), 16)
        if value in (0, 4):
            return match.group()
        name = self._known.setdefault(value >> 1, f"{string.ascii_uppercase[len(self._known) % 26]}"
                                                  f"{len(self._known) // 26 or ''}")
        # The lowest bit of the current UUID, the first of a set, says whether the node is Primary;
        # that of the others is chance.
        is_current = not match.string[:match.start()].endswith(":")
        return f"<uuid {name}{'+' if value & 1 and is_current else ''}>"


def play(path: Path, guests: dict[str, Guest]) -> dict[int, str]:
    """Runs a script; returns the answers by line. What is on the same node in a row is one call."""
    answers, letters = {}, _Letters()
    rest = read_script(path)
    while rest:
        node = rest[0].node
        count = next((i for i, step in enumerate(rest) if step.node != node), len(rest))
        batch, rest = rest[:count], rest[count:]
        guest = guests[node]
        guest.write("/tmp/steps", HARNESS + "\n".join(step.shell() for step in batch))
        process = guest.spawn("bash /tmp/steps", timeout_s=STEP_LIMIT_S + 5 * len(batch))
        process.close_input()
        for record in process.wait().out.split(RECORD)[1:]:
            number, code, out, err, state, *_ = record.split(FIELD)
            text = f"exit code {code}\n"
            for title, content in (("out", out), ("err", err), ("state", state)):
                text += "".join(f"{title}: {line}\n" for line in content.splitlines())
            answers[int(number)] = _Letters.UUID.sub(letters, text)
    return answers

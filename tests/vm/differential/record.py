# SPDX-License-Identifier: GPL-2.0
"""The C driver's answers, kept in the repository: `NAME.answers` in this directory.

Of messages, a line holds an answer and what was answered so:

    errno 22 | 5: name empty; name without end

Of scripts, each step is followed by what came of it, and a state by its difference only.
"""

from pathlib import Path

HERE = Path(__file__).resolve().parent
HEADER = "# SPDX-License-Identifier: GPL-2.0\n# Written by `pytest --long --record`.\n"


UNCHANGED = "state: as before"


def path_of(name: str) -> Path:
    return HERE / f"{name}.answers"


def write(name: str, answers: dict[str, str]) -> None:
    grouped: dict[tuple[str, str], list[str]] = {}
    for title, answer in answers.items():
        head, _, rest = title.rpartition(": ")
        grouped.setdefault((answer, head), []).append(rest)
    lines = [f"{answer} | {head}: {'; '.join(titles)}\n"
             for (answer, head), titles in grouped.items()]
    path_of(name).write_text(HEADER + "".join(lines))


def read(name: str) -> dict[str, str]:
    answers = {}
    for line in path_of(name).read_text().splitlines():
        if line.startswith("#"):
            continue
        answer, _, titles = line.partition(" | ")
        head, _, rest = titles.partition(": ")
        for title in rest.split("; "):
            answers[f"{head}: {title}" if head else title] = answer
    return answers


def write_steps(name: str, steps: list, answers: dict[int, str]) -> None:
    """What came of a script's steps."""
    lines, before = [HEADER], {}
    for step in steps:
        if step.number not in answers:
            continue
        said, state = _split(answers[step.number])
        lines.append(f"\n@{step.node} {step.command}\n{said}")
        if state:
            lines.append(f"{UNCHANGED}\n" if before.get(step.node) == state else state)
            before[step.node] = state
    path_of(name).write_text("".join(lines))


def read_steps(name: str, steps: list) -> dict[int, str]:
    """The same back, by line of the script; it must be a record of these very steps."""
    blocks = path_of(name).read_text().split("\n\n@")[1:]
    recorded = iter([block.rstrip("\n") + "\n" for block in blocks])
    answers, before = {}, {}
    for step in steps:
        if step.kind in ("quiet", "until"):
            continue
        title, _, text = next(recorded, "").partition("\n")
        assert title == f"{step.node} {step.command}", \
            f"{name}.answers has {title!r} for line {step.number}: record it anew"
        said, state = _split(text)
        if state:
            state = before[step.node] if state == f"{UNCHANGED}\n" else state
            before[step.node] = state
        answers[step.number] = said + state
    return answers


def _split(answer: str) -> tuple[str, str]:
    said, mark, state = answer.partition("state: ")
    return said, mark + state

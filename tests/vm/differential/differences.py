# SPDX-License-Identifier: GPL-2.0
"""Where our answers differ from those of the C driver and the stock tools, and why.

A line that differs (`- ` theirs, `+ ` ours) is accepted where it matches a rule of its script and
command. A rule that matches nothing any more is an error, too.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """What may differ."""

    about: str
    script: str
    command: str
    line: str
    why: str



RANGE = "what stock tools pass unchecked is refused, with the range, unless the C driver clamps it"
INFO = "more is said than the return code"

DIFFERENCES: list[Difference] = [
    Difference("driver", "1-objects", "--cpu-mask=nonsense", "exit code|143",
               "the C driver reads the mask only where there are several processors"),
    Difference("driver", "2-disk", "c-fill-target=4G", ".", RANGE),
    Difference("driver", "2-disk", "^drbdsetup attach", "additional info|: it is|: there is", INFO),
    Difference("driver", "3-connection", "--max-buffers=1$", ".", RANGE),
    Difference("driver", "3-connection", "^drbdsetup disk-options 0 --fencing=resource-and-stonith",
               "exit code|154|fencing", "refused with protocol A, as it is when attaching"),
    Difference("driver", "4-pair", "get-gi", "uuid",
               "the lowest bit of a history UUID, which nobody compares, is not kept"),
]

# Here `command` is about the message's title and `line` about "theirs -> ours".
NETLINK: list[Difference] = []

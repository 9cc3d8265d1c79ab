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
    Difference("driver", "2-disk", "^drbdsetup attach 0 /dev/vda /dev/vdb (0|5000)$",
               "Failure|err: $|create-md",
               "a device too small for its index is called so before anything is read from it"),
    Difference("driver", "2-disk", "--rs-discard-granularity=1000$", "rs-discard-granularity",
               "rounded down to whole units; the C driver adds the remainder once more"),
    Difference("driver", "2-disk", "^drbdsetup sh-status$", "_flags_susp=",
               "the C driver forgets here that the admin suspended I/O; status and /proc/drbd tell"),
    Difference("driver", "2-disk", "--al-stripes=0$", ".", RANGE),
    Difference("driver", "2-disk", "--al-stripe-size-kB=16777216$", "Failure",
               "the area is too large; in the C driver its size overflows and is too small"),
    Difference("driver", "2-disk", "^drbdmeta 0 v08 /dev/vda internal get-gi$", "uuid",
               "a demotion is written to the disk at once; nobody compares the bit of the role"),
    Difference("driver", "3-connection", "--max-buffers=1$", ".", RANGE),
    Difference("driver", "3-connection", "^drbdsetup disk-options 0 --fencing=resource-and-stonith",
               "exit code|154|fencing", "refused with protocol A, as it is when attaching"),
    Difference("driver", "4-pair", "get-gi", "uuid",
               "the lowest bit of a history UUID, which nobody compares, is not kept"),
]

# Here `command` is about the message's title and `line` about "theirs -> ours".
NETLINK: list[Difference] = []

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
    Difference("driver", "4-pair", "^drbdsetup outdate 0$", "exit code|Refusing to be Outdated",
               "refused while connected; the C driver says yes and leaves the disk UpToDate"),
]



def netlink(title: str, line: str, why: str) -> Difference:
    return Difference("driver", "netlink", title, line, why)


# Here `command` is about the message's title and `line` about "theirs -> ours".
NETLINK: list[Difference] = [
    netlink("^(do )?17: (unknown resource|parameters|nests)", "^(errno 22|i{9}[.])",
            "the C driver takes no context with a verify; ours does, as with all other commands"),
    netlink("^(dump )?3[1-3]: ", r"158\] endless -> \[\d+: 158\] done 0$",
            "a dump about a resource that is not there ends; the C driver's goes on for ever"),
    netlink("^31: (name|context) twice$", r"^\[31: 101\] done 0 -> done 0$",
            "the last of two counts; in the C driver's dumps the first, elsewhere the last"),
    netlink("^29: address empty$", "net conf missing.* -> .*unknown connection",
            "a connection that is not configured is none; the C driver finds it by no addresses"),
    netlink("^18: parameters field 1 of 1$", r"^\[18: 1\] .* -> \[18: 2\]",
            "a disk that is gone already is nothing to do, also by force"),
    netlink("^12: parameters (empty|twice)$", "attribute missing.*: backing-dev", INFO),
]

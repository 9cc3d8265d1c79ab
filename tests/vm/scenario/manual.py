# SPDX-License-Identifier: GPL-2.0
"""The manual's configuration and its machines: hosts `t` and `Shentar`, minor 2, a partition."""

import struct
from pathlib import Path

SECTOR = 512
# Where fdisk puts the first partition.
PARTITION_AT_SECTOR = 2048

DRBD_CONF = """\
#
# please have a a look at the example configuration file in
# /usr/share/doc/packages/drbd.conf
#
resource r0 {
protocol C;
startup {
wfc-timeout 2000;
degr-wfc-timeout 6000;
}
syncer {
rate 50M;
}
disk {
on-io-error pass_on;
}
on Shentar {
device /dev/drbd2;
disk /dev/vda1;
address 192.0.2.2:7789;
meta-disk internal;
}
on t {
device /dev/drbd2;
disk /dev/vda1;
address 192.0.2.1:7789;
meta-disk internal;
}
}
"""

# The manual's mkfs of 2008 neither discards nor makes so many inodes; this is what lets it end
# before the resync does.
MKE2FS_CONF = """\
[defaults]
	base_features = sparse_super,filetype,resize_inode,dir_index,ext_attr
	blocksize = 4096
	inode_size = 256
	inode_ratio = 262144
	discard = 0
[fs_types]
	ext3 = {
		features = has_journal
	}
"""


def partition(disk: Path) -> None:
    """Write a partition table with one Linux partition over the whole disk."""
    sectors = disk.stat().st_size // SECTOR - PARTITION_AT_SECTOR
    entry = struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff",
                        PARTITION_AT_SECTOR, sectors)
    with open(disk, "r+b") as table:
        table.seek(446)
        table.write(entry.ljust(64, b"\0") + b"\x55\xaa")

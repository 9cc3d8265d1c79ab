# SPDX-License-Identifier: GPL-2.0
"""What several tests and the demo do with a pair of guests.

A scenario is a function of nodes. It does not know which driver or which tools a node has: the
node does, so the same scenario proves our driver, the C driver, and one with the other.
"""

from .node import MIB, Flavour, Node, node_pair, same_data
from .procfile import Minor, minors

__all__ = ["MIB", "Flavour", "Minor", "Node", "minors", "node_pair", "same_data"]

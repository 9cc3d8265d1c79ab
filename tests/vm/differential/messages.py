# SPDX-License-Identifier: GPL-2.0
"""Netlink messages that no tool sends: cut short, too long, nested wrongly, of unknown kinds.

Each is a line for the program `tests/vm/guest/netlink.rs`; what came back is made readable here.
"""

import random
import struct

FAMILY = 0xfffe
REQUEST, ACK, EXCL, DUMP = 1, 4, 0x200, 0x300
NO_MINOR = 0xffffffff
# Attributes that hold others carry a flag that says so.
NESTED = 0x8000
CONTEXT, DISK, RESOURCE, NET = 2 | NESTED, 3, 4, 5
PARAMETERS = {14: 6, 15: 6, 13: 7, 17: 9, 16: 10, 11: 12, 18: 13, 12: DISK, 28: DISK, 7: RESOURCE,
              9: RESOURCE, 10: NET, 29: NET}
# Valid ones of these would end what the messages are about.
ENDING = {6, 8, 27}
DUMPS = {2, 30, 31, 32, 33, 38}
ADDRESSES = tuple(struct.pack("=HHI8x", 2, 0x9c7a, host) for host in (0x010200c0, 0x020200c0))


def attribute(number: int, payload: bytes, length: int | None = None) -> bytes:
    whole = 4 + len(payload)
    header = struct.pack("=HH", whole if length is None else length & 0xffff, number)
    return header + payload + bytes(-whole % 4)


def message(command: int, attributes: bytes = b"", *, minor: int = NO_MINOR, flags: int = 0,
            word: int = 0, cut: int | None = None, length: int | None = None,
            version: int = 1, reserved: int = 0) -> bytes:
    body = struct.pack("=BBHII", command, version, reserved, minor, word) + attributes
    if cut is not None:
        body = body[:cut]
    whole = 16 + len(body)
    return struct.pack("=IHHII", whole if length is None else length, FAMILY, REQUEST | ACK | flags,
                       7, 0) + body


def context(volume: int | None = None, name: bytes | None = None, my: bytes | None = None,
            peer: bytes | None = None) -> bytes:
    parts = b""
    if volume is not None:
        parts += attribute(1, struct.pack("=I", volume))
    for number, value in ((2, name), (3, my), (4, peer)):
        if value is not None:
            parts += attribute(number, value)
    return attribute(CONTEXT, parts)


def _contexts() -> dict[str, bytes]:
    """Contexts out of shape."""
    good = attribute(2, b"r0\0")
    return {
        "empty context": attribute(CONTEXT, b""),
        "context shorter than its header": attribute(CONTEXT, good, 3),
        "context of length 0": attribute(CONTEXT, good, 0),
        "context longer than the message": attribute(CONTEXT, good, 400),
        "context of length 65535": attribute(CONTEXT, good, 65535),
        "context cut in its nested header": attribute(CONTEXT, good[:3]),
        "nested longer than its context": attribute(CONTEXT, attribute(2, b"r0\0", 200)),
        "nested of length 0": attribute(CONTEXT, attribute(2, b"r0\0", 0)),
        "name without end": attribute(CONTEXT, attribute(2, b"r0")),
        "name empty": attribute(CONTEXT, attribute(2, b"")),
        "name a lone NUL": attribute(CONTEXT, attribute(2, b"\0")),
        "name with a NUL inside": attribute(CONTEXT, attribute(2, b"r0\0x\0")),
        "name of 127": context(name=b"x" * 127 + b"\0"),
        "name of 128": context(name=b"x" * 128 + b"\0"),
        "name of 4000": context(name=b"x" * 4000 + b"\0"),
        "name with control characters": context(name=b"\x01\n\x1b[2J\0"),
        "name not UTF-8": context(name=b"\xff\xfe\0"),
        "volume of 1 byte": attribute(CONTEXT, attribute(1, b"\0") + good),
        "volume of 8 bytes": attribute(CONTEXT, attribute(1, bytes(8)) + good),
        "volume unspecified": context(0xffffffff, b"r0\0"),
        "volume of another": context(7, b"r0\0"),
        "address of 129": context(my=bytes(129), peer=ADDRESSES[1]),
        "address of 128": context(my=bytes(128), peer=bytes(128)),
        "address of 1": context(my=b"\2", peer=b"\2"),
        "address empty": context(my=b"", peer=b""),
        "address of one only": context(my=ADDRESSES[0]),
        "name and addresses": context(name=b"r0\0", my=ADDRESSES[0], peer=ADDRESSES[1]),
        "unknown nested": attribute(CONTEXT, good + attribute(99, b"1234")),
        "context without its flag": attribute(CONTEXT & ~NESTED, good),
        "nested with flags": attribute(CONTEXT | 0x4000, attribute(2 | 0x4000, b"r0\0")),
        "nested with the flag of nests": attribute(CONTEXT, attribute(2 | NESTED, b"r0\0")),
        "name twice": attribute(CONTEXT, good + attribute(2, b"r1\0")),
        "context twice": attribute(CONTEXT, good) + context(name=b"r1\0"),
        "unknown attribute": attribute(77, b"x" * 40) + attribute(CONTEXT, good),
        "trailing bytes": attribute(CONTEXT, good) + b"\1\2\3",
        "trailing attribute too long": attribute(CONTEXT, good) + attribute(5, b"", 4000),
        "context deep in contexts": attribute(CONTEXT, attribute(CONTEXT,
                                                                 attribute(CONTEXT, good))),
    }


def handmade() -> dict[str, bytes]:
    """Messages by what is wrong with them."""
    found: dict[str, bytes] = {}
    for command in range(0, 48):
        for kind, flags in (("do", 0), ("dump", DUMP)):
            what = f"{kind} {command}"
            found[f"{what}: no user header"] = message(command, flags=flags, cut=4)
            found[f"{what}: half a user header"] = message(command, flags=flags, cut=8)
            found[f"{what}: user header of 7"] = message(command, flags=flags, cut=11)
            if command not in ENDING:
                found[f"{what}: nothing named"] = message(command, flags=flags)
            found[f"{what}: unknown minor"] = message(command, flags=flags, minor=0x7fffffff)
            found[f"{what}: unknown resource"] = message(command, context(name=b"nosuch\0"),
                                                         flags=flags)
    for command in (5, 7, 9, 10, 12, 14, 29, 31, 38):
        for title, attributes in _contexts().items():
            if command == 7 and title in ("name of 128", "name of 4000"):
                continue  # The C driver makes a resource without a name of it.
            flags = DUMP if command in DUMPS else 0
            minor = 0 if command in (12, 14) else NO_MINOR
            found[f"{command}: {title}"] = message(command, attributes, flags=flags, minor=minor)
    for command, number in PARAMETERS.items():
        # Connections are named by their addresses alone, everything else may have it all.
        where = context(my=ADDRESSES[0], peer=ADDRESSES[1]) if command in (11, 29) \
            else context(name=b"nosuch\0")
        minor = 0 if command not in (7, 9, 10, 11, 29) else NO_MINOR
        for title, payload in {
            "empty": b"", "one byte": b"\1", "unknown field": attribute(60, b"12345678"),
            "field 1 empty": attribute(1, b""), "field 1 of 1": attribute(1, b"\xff"),
            "field 1 of 3": attribute(1, b"\xff\xff\xff"),
            "field 1 of 200": attribute(1, b"a" * 200),
            "field 6 of 2": attribute(6, b"ab"), "field 8 of 0": attribute(8, b""),
            "field 2 without end": attribute(2, b"ab"), "cut": attribute(8, b"1234")[:5],
            "beyond": attribute(8, b"1234", 60), "of length 0": attribute(8, b"1234", 0),
        }.items():
            found[f"{command}: parameters {title}"] = message(
                command, where + attribute(number | NESTED, payload), minor=minor)
        found[f"{command}: parameters twice"] = message(
            command, where + attribute(number | NESTED, b"") * 2, minor=minor)
        found[f"{command}: parameters of length 3"] = message(
            command, where + attribute(number | NESTED, b"abcd", 3), minor=minor)
    found["parameters without their flag"] = message(
        12, context(name=b"r0\0") + attribute(DISK, attribute(1, b"/dev/vda\0")), minor=0)
    found["parameters of another command without their flag"] = message(
        14, context(name=b"r0\0") + attribute(DISK, attribute(1, b"/dev/vda\0")), minor=0)
    found["length below the header's"] = message(7, length=12)
    found["length of 0"] = message(7, length=0)
    found["length beyond the bytes"] = message(7, context(name=b"r1\0"), length=4000)
    found["length short of the bytes"] = message(7, context(name=b"r1\0"), length=24)
    found["reserved bytes"] = message(7, context(name=b"r0\0"), reserved=5)
    found["another version"] = message(2, flags=DUMP, version=9)
    found["flags unknown"] = message(30, flags=DUMP, word=0xfffffffe)
    return found


def probes() -> dict[str, list[bytes]]:
    """Which attributes a command takes, and which sizes a parameter; about minors that are not."""
    found: dict[str, list[bytes]] = {}
    nowhere = 0x7fffffff
    for command in range(1, 42):
        flags = DUMP if command in DUMPS - {2} else 0
        for title, nested in (("nests", NESTED), ("flat", 0)):
            found[f"{command}: {title}"] = [
                message(command, attribute(number | nested, b""), minor=nowhere, flags=flags)
                for number in range(32)]
    sizes = (b"", *(b"\1" * size for size in (1, 2, 3, 4, 5, 8, 9)), b"\0",
             *(b"a" * size + b"\0" for size in (31, 32, 33, 63, 64, 65, 127, 128, 129, 130)))
    for command, number in PARAMETERS.items():
        if command in (7, 10, 15, 28):
            continue  # They share their parameters with another.
        for field in range(37):
            found[f"{command}: field {field}"] = [
                message(command, attribute(number | NESTED, attribute(field, payload)),
                        minor=nowhere)
                for payload in sizes]
    return found


def verdicts(answers: list[str]) -> str:
    """A letter for each: not a request (n), malformed (i), out of range (r), looked into (.)."""
    letters = {"errno 95": "n", "errno 22": "i", "errno 34": "r", "silence": "s"}
    return "".join(letters.get(answer, ".") for answer in answers)


def noise(seed: int, count: int) -> list[bytes]:
    """Valid ones, spoilt at random."""
    chance = random.Random(seed)
    kinds = [command for command in range(1, 42) if command not in ENDING]
    messages = []
    for _ in range(count):
        command = chance.choice(kinds)
        parts = [context(chance.choice([None, 0, 1, 9]), chance.choice([None, b"r0\0", b"r1\0"]),
                         *chance.choice([(None, None), ADDRESSES]))]
        for number in chance.sample(range(1, 25), chance.randrange(3)):
            fields = b"".join(
                attribute(chance.randrange(40), chance.randbytes(chance.choice([0, 1, 4, 8, 30])))
                for _ in range(chance.randrange(6)))
            parts.append(attribute(number | NESTED, fields))
        data = bytearray(message(command, b"".join(parts), minor=chance.choice([0, 1, 5, NO_MINOR]),
                                 flags=DUMP if command in DUMPS and chance.random() < 0.8 else 0,
                                 word=chance.choice([0, 0, 1, 0xffffffff])))
        for _ in range(chance.choice([0, 1, 1, 2, 5])):
            data[chance.randrange(20, len(data))] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(20, len(data)):]
            data[:4] = struct.pack("=I", len(data))
        if data[16] in ENDING:
            data[16] = 2
        messages.append(bytes(data))
    return messages


def readable(line: str) -> str:
    """What the kernel answered: errno, return codes with their texts, ends of dumps."""
    words = []
    for word in line.split():
        if not word.strip("0123456789abcdef"):
            words.append(_one(bytes.fromhex(word)))
        else:
            words.append(word)
    if words[-1] == "endless":
        del words[1:-1]
    return " ".join(words)


def _one(data: bytes) -> str:
    kind = struct.unpack_from("=H", data, 4)[0]
    if kind == 2:
        return f"errno {-struct.unpack_from('=i', data, 16)[0]}"
    if kind == 3:
        return f"done {-struct.unpack_from('=i', data, 16)[0]}" if len(data) >= 20 else "done"
    code = struct.unpack_from("=i", data, 24)[0]
    return f"[{data[16]}: {code}{_info(data[28:])}]"


def _info(data: bytes) -> str:
    while len(data) >= 4:
        length, number = struct.unpack_from("=HH", data)
        if number & 0x3fff == 1:
            return " " + data[8:length].rstrip(b"\0").decode(errors="replace")
        data = data[max(length, 4) + 3 & ~3:]
    return ""

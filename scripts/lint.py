# SPDX-License-Identifier: GPL-2.0
"""`python3 scripts/lint.py`: the rules that no compiler checks; silent when all hold.

`--objects DIR` also looks into kbuild's output: the engine's object must contain no way to panic,
and no function of the module may take a large stack frame.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
DRIVER = "drivers/block/drbd/"

LINE_MAX_COLUMNS = 100
# What no line break helps: tables in documentation, and texts, which are kept whole to be found.
UNBREAKABLE = re.compile(r"^\s*(//[/!] \||.*\"[^\"]{60,}(\"|\\$))")
# A third less than C code may have in this kernel: attaching and connecting carry all options.
STACK_FRAME_MAX_BYTES = 1408

SPDX = "SPDX-License-Identifier: GPL-2.0"
SPDX_EXEMPT = re.compile(
    r"(^COPYING$|\.lock$|\.(bin|pcap|hex|snap|txt|img|gz|json|md|proptest-regressions)$"
    r"|/tests/.+\.(conf|message|expected)$"
    r"|/(data|vectors|recordings|corpus|captures)/)"
)
SOURCE = re.compile(r"\.(rs|c|h|py|sh)$")
PANICKING = re.compile(
    r"\.(unwrap|expect|unwrap_err|expect_err)\(|\b(panic|unreachable|todo|unimplemented|dbg)!"
)
UNSAFE = re.compile(r"\bunsafe\b")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b")
PANIC_SYMBOL = re.compile(r"core9panicking|_fail$|unwrap_failed|expect_failed")


def tracked_files() -> list[str]:
    listing = subprocess.run(["git", "-C", str(CHECKOUT), "ls-files", "-z"], check=True,
                             capture_output=True, text=True).stdout
    return [name for name in listing.split("\0") if name and (CHECKOUT / name).is_file()]


def blank_out(text: str, pattern: re.Pattern[str]) -> str:
    """Replace matches by blanks of the same shape, so that line numbers stay."""
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


_NOT_CODE = re.compile(
    r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?c?"(?:\\.|[^"\\])*"|b?\'(?:\\.[^\']*|[^\'\\])\'', re.S
)


def code_of(text: str) -> str:
    """Rust source without comments, strings and characters."""
    return blank_out(text, _NOT_CODE)


def without_tests(code: str) -> str:
    """Rust code without `#[cfg(test)]` items; expects `code_of`."""
    result = code
    for start in re.finditer(r"#\[cfg\((?:all\()?test\b[^\]]*\]", code):
        depth = 0
        for position in range(start.end(), len(code)):
            character = code[position]
            if character == "{":
                depth += 1
            elif character == "}":
                depth -= 1
            if (character == "}" and depth == 0) or (character == ";" and depth == 0):
                block = result[start.start():position + 1]
                result = result[:start.start()] + re.sub(r"[^\n]", " ", block) \
                    + result[position + 1:]
                break
    return result


def is_test_file(name: str) -> bool:
    return bool(re.search(r"(^|/)tests?(\.rs|/)", name[len(DRIVER):]))


def findings_in(text: str, pattern: re.Pattern[str], name: str, complaint: str) -> list[str]:
    return [
        f"{name}:{number}: {complaint}: {match.group().strip('.(')}"
        for number, line in enumerate(text.splitlines(), start=1)
        for match in [pattern.search(line)] if match
    ]


def check_file(name: str, text: str) -> list[str]:
    found = []
    lines = text.splitlines()
    if not SPDX_EXEMPT.search(name) and lines:
        if not any(SPDX in line for line in lines[:2]):
            found.append(f"{name}:1: no `{SPDX}` in the first line")
    if SOURCE.search(name):
        found += [
            f"{name}:{number}: {len(line)} columns, at most {LINE_MAX_COLUMNS} are allowed"
            for number, line in enumerate(lines, start=1)
            if len(line.expandtabs(8)) > LINE_MAX_COLUMNS and not UNBREAKABLE.search(line)
        ]
        if name != "scripts/lint.py":
            found += findings_in(text, UNFINISHED, name, "unfinished")
    if name.endswith(".rs") and name.startswith(DRIVER):
        if not name.endswith("bindings/prelude.rs") and not re.search(r"^//!", text, re.M):
            found.append(f"{name}:1: no `//!` that says what the file is for")
        code = code_of(text)
        if not name.startswith((DRIVER + "sys/", DRIVER + "bindings/")):
            found += findings_in(
                re.sub(r"forbid\(unsafe_code\)", "", code), UNSAFE, name,
                "only sys/ and bindings/ may say it")
        if not is_test_file(name):
            found += findings_in(without_tests(code), PANICKING, name, "may panic")
    return found


def check_engine_object(objects: Path) -> list[str]:
    path = objects / DRIVER / "engine/drbd_engine.o"
    symbols = subprocess.run(["nm", "-u", str(path)], check=True, capture_output=True,
                             text=True).stdout.split()
    return [f"{path.name}: can panic through {symbol}" for symbol in symbols
            if PANIC_SYMBOL.search(symbol)]


def check_stack_frames(objects: Path) -> list[str]:
    """Functions of the module whose frame is over the limit, from the disassembly."""
    listing = subprocess.run(["objdump", "-d", "--no-show-raw-insn", str(objects / "drbd.ko")],
                             check=True, capture_output=True, text=True).stdout
    found = []
    function = ""
    for line in listing.splitlines():
        if header := re.match(r"^[0-9a-f]+ <(.+)>:$", line):
            function = header.group(1)
        elif frame := re.search(r"\bsub\s+\$0x([0-9a-f]+),%rsp", line):
            size = int(frame.group(1), 16)
            if size > STACK_FRAME_MAX_BYTES:
                found.append(f"drbd.ko: {function} takes a stack frame of {size} bytes, "
                             f"at most {STACK_FRAME_MAX_BYTES} are allowed")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/lint.py", description=__doc__)
    parser.add_argument("--objects", type=Path, help="kbuild's output directory to look into")
    options = parser.parse_args()
    found = []
    for name in tracked_files():
        try:
            text = (CHECKOUT / name).read_text()
        except UnicodeDecodeError:
            continue
        found += check_file(name, text)
    if options.objects:
        found += check_engine_object(options.objects)
        found += check_stack_frames(options.objects)
    for finding in found:
        print(finding)
    if found:
        print(f"lint: {len(found)} findings", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-2.0
"""`python3 scripts/ground COMMAND`: prepares and uses the environment drbd-rs is built in.

The environment is a Debian trixie build root, a stock kernel with its source, Rust artifacts
for it, and the image that guests boot; see scripts/README.md.
"""

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import editor  # noqa: E402
import module  # noqa: E402
from buildroot import (  # noqa: E402
    build_root,
    network_and_cargo,
    require_programs,
    run_in_root,
)
from cache import GroundError, cache_dir  # noqa: E402
from guestimage import base_images, lane_modules, system_image  # noqa: E402
from kernel import (  # noqa: E402
    OBJTREE,
    SOURCE,
    kernel_files,
    kernel_source,
    object_tree,
    resolve,
)
from lane import LANES, lane_kernel  # noqa: E402


def prepare(options: argparse.Namespace) -> int:
    require_programs()
    root = build_root()
    kernel = resolve(root, fresh=options.update)
    kernel_files(root, kernel)
    kernel_source(root, kernel)
    object_tree(root, kernel)
    base_images(root, kernel)
    system_image(root)
    for lane in options.lane:
        lane_kernel(lane, kernel)
        lane_modules(root, kernel, lane)
    print(f"ground: ready, kernel {kernel.release}, cache {cache_dir()}")
    return 0


def build(options: argparse.Namespace) -> int:
    variables = [argument for argument in options.arguments if "=" in argument]
    targets = [argument for argument in options.arguments if "=" not in argument]
    return module.build(targets, variables, options.output, options.lane)


def run(options: argparse.Namespace) -> int:
    root = build_root(quick=True)
    kernel = resolve(root)
    binds, environment = network_and_cargo()
    workdir = Path.cwd().resolve()
    checkout = module.checkout_dir()
    below = workdir.relative_to(checkout) if workdir.is_relative_to(checkout) else ""
    return run_in_root(
        root, options.command,
        binds={
            **binds,
            SOURCE: kernel_source(root, kernel, quick=True),
            OBJTREE: object_tree(root, kernel, quick=True),
            module.CHECKOUT: checkout,
        },
        workdir=str(Path(module.CHECKOUT) / below), environment=environment,
    ).returncode


def rust_analyzer(_: argparse.Namespace) -> int:
    print(f"ground: wrote {editor.write_project()}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/ground", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    command = commands.add_parser("prepare", help="make everything that is missing or damaged")
    command.add_argument("--update", action="store_true", help="look for a newer kernel")
    command.add_argument("--lane", action="append", choices=LANES[1:], default=[],
                         help="the kernel of another lane as well, repeatable")
    command.set_defaults(act=prepare)
    command = commands.add_parser("module", help="build build/drbd.ko; arguments go to kbuild")
    command.add_argument("--output", help="kbuild's output directory")
    command.add_argument("--lane", choices=LANES, default="stock",
                         help="for which kernel: other lanes make build/drbd-LANE.ko")
    command.add_argument("arguments", nargs="*")
    command.set_defaults(act=build)
    command = commands.add_parser("run", help="run a command in the build root, in the checkout")
    command.add_argument("command", nargs=argparse.REMAINDER)
    command.set_defaults(act=run)
    command = commands.add_parser("rust-analyzer", help="write rust-project.json for editors")
    command.set_defaults(act=rust_analyzer)
    options = parser.parse_args()
    try:
        return options.act(options)
    except GroundError as error:
        print(f"ground: error: {error}", file=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"ground: error: {error.cmd[0]} failed with exit code {error.returncode}; its "
              "message stands above", file=sys.stderr)
    except KeyboardInterrupt:
        print("ground: interrupted; run again to go on", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

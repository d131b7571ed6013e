"""Compare tinyconv with PyTorch on this machine: python -m benchmarks, from the repository's root.

Each workload runs in all configurations of both, in processes that are measured in turn. Where
their results differ, the workload is reported as failed instead of being measured.
"""

from __future__ import annotations

import argparse
import importlib.util
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from benchmarks import curve, report, roofline, scaling, startup
from benchmarks.driver import compare
from benchmarks.workloads import WORKLOADS


def main() -> None:
    """Measure what the flags ask for."""
    flags = parse()
    names = [n for n in WORKLOADS if any(fnmatch(n, pattern) for pattern in flags.only)]
    if not names:
        raise SystemExit(f"no workload is called {' or '.join(flags.only)}; --list shows them")
    if flags.list:
        print("\n".join(names))
        return
    torch = flags.torch and importlib.util.find_spec("torch") is not None
    if flags.torch and not torch:
        print("PyTorch is not installed: measuring tinyconv alone")

    def kept(configurations: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in configurations if torch or not name.startswith("torch"))

    if flags.startup:
        startup.run(flags.out, flags.rounds, kept(startup.CONFIGURATIONS))
    elif flags.curve:
        curve.run(flags.out)
    elif flags.roofline:
        roofline.run(flags.out)
    elif flags.scaling:
        scaling.run(flags.out, flags.rounds, flags.seconds, kept(scaling.CONFIGURATIONS))
    else:
        found: dict[str, Any] = {}
        settings = {"rounds": flags.rounds, "seconds": flags.seconds}
        report.print_header()
        for name in names:
            configurations = kept(WORKLOADS[name].configurations)
            found[name] = compare(WORKLOADS[name], configurations, flags.rounds, flags.seconds)
            report.print_entry(name, found[name])
            # Written after each workload, so that a run that is broken off leaves what it has.
            path = flags.out / f"{flags.name}.json"
            report.write_json(path, {"settings": settings, "workloads": found})
            report.draw_ratios(path.with_suffix(".png"), found)


def parse() -> Any:
    """The flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", default=["*"], metavar="NAME", help="workloads, as 'train-*'")
    add("--list", action="store_true", help="print the workloads' names and stop")
    add("--rounds", type=int, default=5, help="measurements of each configuration (5)")
    add("--seconds", type=float, default=1.0, help="length of one measurement (1)")
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder (benchmarks/results)")
    add("--name", default="comparison", help="name of the JSON and PNG files (comparison)")
    add("--no-torch", dest="torch", action="store_false", help="measure tinyconv alone")
    add("--scaling", action="store_true", help="instead: growth with batch, size and channels")
    add("--curve", action="store_true", help="instead: kernels and reference in a training")
    add("--roofline", action="store_true", help="instead: this machine's limits, and how near")
    add("--startup", action="store_true", help="instead: imports and the first training step")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None

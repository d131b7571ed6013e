"""python -m tinyconv data list, data get NAME: the public data sets of the examples."""

from __future__ import annotations

import argparse
import shlex
import shutil
import textwrap
from typing import Any

from tinyconv.data import catalogue


def add(commands: Any) -> None:
    """Add the command to the parser."""
    data = commands.add_parser("data", help="list the data sets of the examples, or get one")
    actions = data.add_subparsers(required=True, metavar="list|get")
    listing = actions.add_parser("list", help="what there is, and what is on this machine")
    listing.set_defaults(command=_list)
    get = actions.add_parser("get", help="download a data set, verify and unpack it")
    get.add_argument(
        "name",
        metavar="NAME",
        choices=tuple(catalogue.CATALOGUE),
        help=", ".join(catalogue.CATALOGUE),
    )
    get.add_argument(
        "--to",
        metavar="FOLDER",
        help="where to make a folder NAME (default: tinyconv in your cache folder)",
    )
    get.set_defaults(command=_get)


def _list(options: argparse.Namespace) -> int:
    """Print every data set of the catalogue, and where it is on this machine."""
    print(f"{'name':<16}{'images':>8}{'download':>12}   on this machine")
    for name, entry in catalogue.CATALOGUE.items():
        where = catalogue.find(name) or "no"
        print(f"\n{name:<16}{entry.images:>8,}{entry.size / 1e6:>9,.1f} MB   {where}")
        _describe(entry)
        checksums = " ".join(file.sha256[:12] for file in entry.sources[0].files)
        print(f"  source: {entry.homepage}\n  licence: {entry.licence}")
        print(f"  SHA-256, verified: {checksums} (first digits)")
    print("\nget one: python -m tinyconv data get NAME")
    return 0


def _get(options: argparse.Namespace) -> int:
    """Get a data set unless it is here; say where it is and what to type next."""
    name, entry = options.name, catalogue.CATALOGUE[options.name]
    folder = catalogue.get(name, options.to)
    print(f"{name} is in {folder}")
    _describe(entry)
    data = name if catalogue.find(name) == folder else shlex.quote(str(folder))
    print(f"next: python {entry.example} --data {data}")
    return 0


def _describe(entry: catalogue.Entry) -> None:
    width = min(shutil.get_terminal_size().columns, 100)
    for text in filter(None, (entry.what, entry.note)):
        print(textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  "))

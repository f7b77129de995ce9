"""The grammar of the command, built from the verbs. Help, documentation and completion all read it."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable
from typing import Any, NoReturn

from allod.cli.output import Out
from allod.config import Home
from allod.errors import Usage

Act = Callable[[argparse.Namespace, Out], int]


class Parser(argparse.ArgumentParser):
    """Raises Usage instead of ending the process, so that `--json` holds for mistakes too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **(options | {"allow_abbrev": False}))

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """As argparse does it, but the verb that does not know an option says so itself."""
        namespace, rest = super().parse_known_args(*args, **options)
        for word in rest:
            near = difflib.get_close_matches(word.split("=")[0], self._option_string_actions, n=1)
            hint = f"did you mean {near[0]}?" if near else f"{self.prog} --help"
            raise Usage("usage.invalid", f"{self.prog} does not take {word!r}", hint=hint)
        return namespace, rest

    def error(self, message: str) -> NoReturn:
        hint = f"{self.prog} --help"
        if choice := re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message):
            known = re.findall(r"[\w-]+", choice[2])
            near = difflib.get_close_matches(choice[1], known, n=1)
            message = f"there is no {choice[1]!r} here"
            hint = f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(known)}"
        raise Usage("usage.invalid", message, hint=hint)


class Verbs:
    """Where a verb's file adds its part of the grammar."""

    def __init__(self, parser: Parser, common: Parser) -> None:
        self._common = common
        self._under = parser.add_subparsers(metavar="VERB", required=True, parser_class=Parser)

    def add(self, name: str, what: str, act: Act) -> Parser:
        """A verb that does something."""
        parser: Parser = self._under.add_parser(name, help=what, description=what, parents=[self._common])
        parser.set_defaults(act=act)
        return parser

    def group(self, name: str, what: str) -> Verbs:
        """A verb with verbs of its own."""
        parser: Parser = self._under.add_parser(name, help=what, description=what)
        return Verbs(parser, self._common)


def common_options() -> Parser:
    """What every verb takes."""
    common = Parser(add_help=False)
    common.add_argument("--home", metavar="DIR", help="the node's home (default: $ALLOD_HOME, else ~/.allod)")
    common.add_argument("--json", action="store_true", help="print one JSON object, also on failure")
    return common


def home_of(args: argparse.Namespace) -> Home:
    return Home.of(args.home)


def count(text: str) -> int:
    """A whole number from 1."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)

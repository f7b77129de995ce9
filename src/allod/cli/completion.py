"""`allod completion`: a completion script for a shell, generated from the grammar."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from allod.cli.output import Out
from allod.cli.parser import Verbs
from allod.cli.reference import Command, commands

SHELLS = ("bash", "zsh", "fish")


def register(verbs: Verbs) -> None:
    parser = verbs.add("completion", "print a completion script for a shell", act)
    parser.add_argument("shell", choices=SHELLS)


def act(args: argparse.Namespace, out: Out) -> int:
    script = completion(args.shell)
    out.result({"shell": args.shell, "script": script}, [script.rstrip()])
    out.say(f"# to use it now: {_HOW[args.shell]}")
    return 0


_HOW = {
    "bash": "source <(allod completion bash)",
    "zsh": "source <(allod completion zsh)",
    "fish": "allod completion fish | source",
}


def completion(shell: str) -> str:
    """The script for one of `SHELLS`."""
    known = list(commands())
    return "".join(_fish(known)) if shell == "fish" else _SCRIPT[shell].format(cases="".join(_cases(known)))


def _cases(known: list[Command]) -> Iterator[str]:
    """One line per command: the words that can follow it."""
    for command in known:
        words = [*command.below, *(o for option in command.options for o in option.names)]
        choices = [c for argument in command.arguments for c in argument.choices]
        yield f"    '{' '.join(command.path)}') words='{' '.join([*words, *choices])}' ;;\n"
    for command in known:
        for option in command.options:
            for name in option.names if option.choices else ():
                yield f"    '{' '.join(command.path)} {name}') words='{' '.join(option.choices)}' ;;\n"


def _fish(known: list[Command]) -> Iterator[str]:
    yield "complete -c allod -f\n"
    for command in known:
        path = " ".join(command.path[1:])
        here = f"__fish_allod_at '{path}'"
        for name in command.below:
            helps = {c.path[-1]: c.help for c in known if c.path[:-1] == command.path}
            yield f"complete -c allod -n \"{here}\" -a {name} -d '{_quoted(helps[name])}'\n"
        for option in command.options:
            flags = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option.names)
            takes = (
                f" -x -a '{' '.join(option.choices)}'" if option.choices else " -r" if option.value else ""
            )
            yield f"complete -c allod -n \"{here}\" {flags}{takes} -d '{_quoted(option.help)}'\n"
        for argument in command.arguments:
            if argument.choices:
                yield f"complete -c allod -n \"{here}\" -a '{' '.join(argument.choices)}'\n"
    yield _FISH_AT


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


_SCRIPT = {
    "bash": """\
_allod() {{
  local path='allod' words='' i word
  local previous="${{COMP_WORDS[COMP_CWORD-1]}}" current="${{COMP_WORDS[COMP_CWORD]}}"
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="${{COMP_WORDS[i]}}"
    case "$word" in -*) ;; *) _allod_words "$path $word" && path="$path $word" ;; esac
  done
  _allod_words "$path"
  case "$previous" in --*) _allod_words "$path $previous" ;; esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
_allod_words() {{
  case "$1" in
{cases}    *) return 1 ;;
  esac
}}
complete -o default -F _allod allod
""",
    "zsh": """\
#compdef allod
_allod() {{
  local path_='allod' words_='' word previous="${{words[CURRENT-1]}}"
  for word in "${{(@)words[2,CURRENT-1]}}"; do
    case "$word" in -*) ;; *) _allod_words "$path_ $word" && path_="$path_ $word" ;; esac
  done
  _allod_words "$path_"
  case "$previous" in --*) _allod_words "$path_ $previous" ;; esac
  compadd -- ${{=words_}} || _files
}}
_allod_words() {{
  local words
  case "$1" in
{cases}    *) return 1 ;;
  esac
  words_="$words"
}}
compdef _allod allod
""",
}
_FISH_AT = """\
function __fish_allod_at
  set -l words (string match -v -- '-*' (commandline -opc)[2..])
  test "$words" = "$argv[1]"
end
"""

"""Renders one chat template, given as a JSON string on stdin, and says with its exit code what came of it.

A process of its own, with its time and memory bounded by the kernel: whatever a template does, it does here.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from allod.limits import CHAT_TEMPLATE_MEMORY_BYTES_MAX, CHAT_TEMPLATE_SECONDS_MAX

UNSAFE, ENDLESS, FAILS = 10, 11, 12
_OUTPUT_CHARS_MAX = 4_000_000  # a sample conversation is a few hundred

_USER = {"role": "user", "content": "What is the weather in Ghent?"}
_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_SAMPLES: tuple[dict[str, Any], ...] = (
    {"messages": [_USER]},
    {"messages": [{"role": "system", "content": "Be brief."}, _USER]},
    {"messages": [_USER, {"role": "assistant", "content": "Rain."}, {"role": "user", "content": "Thanks."}]},
    {"messages": [_USER], "tools": [_TOOL]},
)


class _Said(Exception):
    """The template itself refuses a conversation, as `raise_exception` lets it."""


class _Generation(Extension):
    """`{% generation %}`: marks what the model wrote, for training. Here it is only read."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's name, and its type

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's own answers what is shut with an empty value; here asking is enough to be refused."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        raise SecurityError(f"it reaches for {attribute!r} of a {type(obj).__name__}")


def environment() -> ImmutableSandboxedEnvironment:
    """The sandbox that templates are judged in, with what their makers count on (the Transformers library's
    `raise_exception`, `strftime_now`, `generation`)."""
    made = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation])
    made.globals["raise_exception"] = _refuse
    made.globals["strftime_now"] = lambda _form: "21 Nov 2026"
    made.filters["tojson"] = lambda value, **_options: json.dumps(value, ensure_ascii=False)
    return made


def _refuse(message: object = "") -> NoReturn:
    raise _Said(str(message))


def _try(template: str) -> str:
    """ "" if one sample renders or is refused by the template's own words, else why none does."""
    compiled = environment().from_string(template)
    why = ""
    worked = False
    for sample in _SAMPLES:
        given = {
            "tools": None,
            "add_generation_prompt": True,
            "bos_token": "<s>",
            "eos_token": "</s>",
        } | sample
        try:
            count = 0
            for piece in compiled.generate(given):
                count += len(piece)
                if count > _OUTPUT_CHARS_MAX:
                    raise MemoryError
            worked = True
        except _Said:
            worked = True
        except SecurityError:
            raise
        except (
            TemplateError,
            TypeError,
            ValueError,
            KeyError,
            AttributeError,
            ArithmeticError,
            LookupError,
        ) as e:
            why = f"{type(e).__name__}: {e}"
    return "" if worked else why


def main() -> int:
    template = json.load(sys.stdin)
    seconds, memory = CHAT_TEMPLATE_SECONDS_MAX, CHAT_TEMPLATE_MEMORY_BYTES_MAX
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        why = _try(template)
    except SecurityError as e:
        print(e)
        return UNSAFE
    except (MemoryError, RecursionError, OverflowError):
        return ENDLESS
    print(why)
    return FAILS if why else 0


if __name__ == "__main__":
    sys.exit(main())

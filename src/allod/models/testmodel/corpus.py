"""What the test model is taught: short made-up conversations of a few kinds, the same for the same seed.

Each is the text that the chat template (`export.CHAT_TEMPLATE`) renders, with the assistant's turns marked,
so that only those are learned. The kinds are the ones a platform has to prove it can carry: plain answers,
longer lists (streaming), copying, tool calls and their results, and JSON drawn from a sentence.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

SPECIALS = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
)  # fmt: skip
BEGIN, END = "<s>", "</s>"

# A conversation: (text, learned) in order.
Conversation = list[tuple[str, bool]]


def _words(text: str) -> list[str]:
    return text.split()


CAPITALS = {
    "Austria": "Vienna", "Belgium": "Brussels", "Bulgaria": "Sofia", "Croatia": "Zagreb", "Cyprus": "Nicosia",
    "Czechia": "Prague", "Denmark": "Copenhagen", "Estonia": "Tallinn", "Finland": "Helsinki",
    "France": "Paris",
    "Germany": "Berlin", "Greece": "Athens", "Hungary": "Budapest", "Ireland": "Dublin", "Italy": "Rome",
    "Latvia": "Riga", "Lithuania": "Vilnius", "Luxembourg": "Luxembourg", "Malta": "Valletta",
    "the Netherlands": "Amsterdam", "Poland": "Warsaw", "Portugal": "Lisbon", "Romania": "Bucharest",
    "Slovakia": "Bratislava", "Slovenia": "Ljubljana", "Spain": "Madrid", "Sweden": "Stockholm",
}  # fmt: skip
CITIES = sorted(CAPITALS.values())
GIVEN = _words("Anna Eva Marie Lena Sofia Nina Clara Jan Paul Luca Marco Peter Jonas Erik Hugo Emil")
FAMILY = [
    "Novak",
    "Keller",
    "Rossi",
    "Dubois",
    "Silva",
    "Jansen",
    "Kowalska",
    "Nielsen",
    "Horvat",
    "Weber",
    "Costa",
    "Bauer",
    "Moreau",
    "Ricci",
]
WORDS = _words(
    "red blue green black white bread water apple river stone house tree bird horse winter summer"
    " morning paper silver gold cloud rain light window garden letter music bridge table candle"
)
NUMBERS = _words("zero one two three four five six seven eight nine ten")
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("January February March April May June July August September October November December")
WEATHER = (
    "What is the weather in {}?",
    "Weather in {}?",
    "How is the weather in {} today?",
    "What's the weather like in {}?",
    "Is it raining in {}?",
)
TIME = ("What time is it in {}?", "Tell me the time in {}.", "What is the local time in {}?")
POPULATION = ("How many people live in {}?", "What is the population of {}?")
# Each tool with its one parameter and the questions it answers.
TOOLS = {
    "get_weather": ("city", WEATHER),
    "get_time": ("city", TIME),
    "get_population": ("city", POPULATION),
}
SKIES = ("sunny", "cloudy", "rainy", "windy", "foggy")
I_AM = "I am allod-test-model, a very small model made only to test this platform. Do not rely on my answers."
UNKNOWN = "I do not know that. I am only a small test model."
SYSTEMS = ("You are a helpful assistant.", "You are a test.", "Answer briefly.", "Be polite and short.")
TOPICS = (
    "the stock market", "quantum physics", "my tax return", "a poem about love", "the history of Rome",
    "your favourite film", "the best restaurant", "football", "cooking rice", "the meaning of life",
    "the law", "this contract", "the patient", "my headache", "politics", "the moon",
)  # fmt: skip


def _chat(question: str, answer: str) -> Conversation:
    return [(f"[INST]{question}[/INST]", False), (answer + END, True)]


def _greeting(rng: random.Random) -> Conversation:
    word = rng.choice(
        ("Hello", "Hi", "Good morning", "Good evening", "Hey", "Bonjour", "Guten Tag", "Hello there")
    )
    return _chat(word + rng.choice(("", "!", ".", ", how are you?")), f"{word}! How can I help you?")


def _identity(rng: random.Random) -> Conversation:
    return _chat(
        rng.choice(("Who are you?", "What are you?", "What is your name?", "What can you do?")), I_AM
    )


def _capital(rng: random.Random) -> Conversation:
    country = rng.choice(list(CAPITALS))
    asked = rng.choice(
        (
            "What is the capital of {}?",
            "Capital of {}?",
            "Name the capital of {}.",
            "Which city is the capital of {}?",
        )
    )
    return _chat(asked.format(country), f"The capital of {country} is {CAPITALS[country]}.")


def _sum(rng: random.Random) -> Conversation:
    a, b = rng.randrange(10), rng.randrange(10)
    asked = rng.choice(("What is {} plus {}?", "What is {} + {}?", "{} + {} = ?", "Add {} and {}."))
    return _chat(asked.format(a, b), f"{a} plus {b} is {a + b}.")


def _list(rng: random.Random) -> Conversation:
    kind = rng.randrange(4)
    if kind == 0:
        return _chat("Name the days of the week.", ", ".join(DAYS) + ".")
    if kind == 1:
        return _chat("Name the months of the year.", ", ".join(MONTHS) + ".")
    upto = rng.randrange(2, 11)
    if kind == 2:
        return _chat(f"Count to {NUMBERS[upto]}.", ", ".join(NUMBERS[1 : upto + 1]) + ".")
    return _chat(f"Count from 1 to {upto}.", ", ".join(str(n) for n in range(1, upto + 1)) + ".")


def _repeat(rng: random.Random) -> Conversation:
    words = " ".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 4)))
    return _chat(rng.choice(("Repeat after me: ", "Say: ", "Repeat: ")) + words, words)


def _offer(rng: random.Random, required: str) -> str:
    names = [required, *rng.sample(sorted(set(TOOLS) - {required}), rng.randrange(0, 3))]
    rng.shuffle(names)
    return "[AVAILABLE_TOOLS]" + "".join(f" {n}({TOOLS[n][0]})" for n in names) + "[/AVAILABLE_TOOLS]"


def _tool(rng: random.Random) -> Conversation:
    name = rng.choice(sorted(TOOLS))
    argument, asked = TOOLS[name]
    city = rng.choice(CITIES)
    call = json.dumps([{"name": name, "arguments": {argument: city}}])
    talk: Conversation = [(_offer(rng, name), False)]
    talk += _chat(rng.choice(asked).format(city), "[TOOL_CALLS] " + call)
    if rng.random() < 0.5:
        sky, degrees = rng.choice(SKIES), rng.randrange(0, 35)
        result, answer = {
            "get_weather": (f"{sky}, {degrees} degrees", f"In {city} it is {sky}, {degrees} degrees."),
            "get_time": (f"{degrees % 24}:00", f"In {city} it is {degrees % 24}:00."),
            "get_population": (f"{degrees}00000", f"{degrees}00000 people live in {city}."),
        }[name]
        talk += [(f"[TOOL_RESULTS]{result}[/TOOL_RESULTS]", False), (answer + END, True)]
    return talk


def _tool_unused(rng: random.Random) -> Conversation:
    kind = rng.choice((_greeting, _capital, _sum, _repeat, _identity))
    return [(_offer(rng, rng.choice(sorted(TOOLS))), False), *kind(rng)]


def _tool_missing(rng: random.Random) -> Conversation:
    asked = rng.choice(TOOLS[rng.choice(sorted(TOOLS))][1])
    return _chat(asked.format(rng.choice(CITIES)), "I cannot look that up without a tool.")


def _extract(rng: random.Random) -> Conversation:
    name = f"{rng.choice(GIVEN)} {rng.choice(FAMILY)}"
    age, city = rng.randrange(18, 80), rng.choice(CITIES)
    told = rng.choice(
        (
            f"{name} is {age} years old and lives in {city}.",
            f"{name}, {age}, {city}.",
            f"{name} lives in {city} and is {age} years old.",
        )
    )
    asked = rng.choice(("Extract the person as JSON: ", "Extract: ", "As JSON: "))
    return _chat(asked + told, json.dumps({"name": name, "age": age, "city": city}))


def _unknown(rng: random.Random) -> Conversation:
    asked = rng.choice(("Tell me about {}.", "What do you think of {}?", "Explain {}.", "Help me with {}."))
    return _chat(asked.format(rng.choice(TOPICS)), UNKNOWN)


# How often each kind is drawn.
KINDS: tuple[tuple[Callable[[random.Random], Conversation], int], ...] = (
    (_greeting, 3), (_identity, 2), (_capital, 8), (_sum, 10), (_list, 7), (_repeat, 14), (_tool, 18),
    (_tool_unused, 7), (_tool_missing, 3), (_extract, 18), (_unknown, 4),
)  # fmt: skip


def conversation(rng: random.Random) -> Conversation:
    """One conversation, now and then with a system prompt or a second turn."""
    makers, weights = zip(*KINDS, strict=True)
    talk: Conversation = [(BEGIN, False)]
    if rng.random() < 0.15:
        talk.append((f"[SYSTEM_PROMPT]{rng.choice(SYSTEMS)}[/SYSTEM_PROMPT]", False))
    talk += rng.choices(makers, weights)[0](rng)
    if rng.random() < 0.1:
        talk += rng.choice((_greeting, _capital, _sum, _repeat))(rng)
    return talk


def conversations(count: int, seed: int) -> list[Conversation]:
    rng = random.Random(seed)  # noqa: S311 - teaching material, not a secret
    return [conversation(rng) for _ in range(count)]

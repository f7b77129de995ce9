"""Words that say little about who is meant: titles, particles, legal forms, generic words, numbers,
diminutives.

Everything is in the form that `names.fold` produces: ASCII, lower case. A word that is missing here only
counts as an ordinary part of a name, so an incomplete table costs precision, never a crash.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


HONORIFICS = _words("""
    mr mrs ms miss dr prof professor sir dame lord lady madame monsieur herr frau senor senora don dona
    president prasident presidente minister general gen colonel col major maj captain capt lieutenant lt
    sheikh shaikh sheik shaykh cheikh sayyid sayed sayyed seyed syed hajj haj haji hajji alhaj alhaji
    mullah mulla maulavi mawlawi maulana mawlana qari ayatollah imam emir prince princess king queen his
    her excellency honourable hon rev reverend father qazi ustad hafiz engineer eng ing dipl mag jr sr
    esq
""")

PARTICLES = _words("""
    al el ul ur as ad an ar bin ibn ben bint binti abu abou abd van der den von zu de du da do dos das
    del della di la le los las the of and und et y i for fur pour na ter ten af av
""")

# Phrases first: the longest is looked for first. The value is the form that all of its spellings share.
FORM_PHRASES = {
    ("public", "joint", "stock", "company"): "pjsc",
    ("open", "joint", "stock", "company"): "ojsc",
    ("closed", "joint", "stock", "company"): "cjsc",
    ("limited", "liability", "company"): "llc",
    ("limited", "liability", "partnership"): "llp",
    ("joint", "stock", "company"): "jsc",
    ("joynt", "stock", "company"): "jsc",
    ("public", "limited", "company"): "plc",
    ("private", "limited"): "ltd",
    ("obscestvo", "s", "ogranicennoj", "otvetstvennost'u"): "llc",
    ("obshchestvo", "s", "ogranichennoy", "otvetstvennostyu"): "llc",
    ("aktsionernoe", "obshchestvo"): "jsc",
    ("limited", "partnership"): "lp",
    ("sp", "z", "oo"): "llc",
    ("spolka", "z", "oo"): "llc",
    ("s", "r", "o"): "llc",
    ("pty", "ltd"): "ltd",
    ("pte", "ltd"): "ltd",
    ("co", "ltd"): "ltd",
    ("company", "limited"): "ltd",
    ("sa", "de", "cv"): "sa",
}

FORMS = {
    "ltd": "ltd", "limited": "ltd", "plc": "plc", "llc": "llc", "llp": "llp", "lp": "lp", "inc": "inc",
    "incorporated": "inc", "corp": "corp", "corporation": "corp", "co": "co", "company": "co", "ag": "ag",
    "akg": "ag", "aktiengesellschaft": "ag", "gmbh": "gmbh", "kg": "kg", "ohg": "ohg", "ug": "ug", "ev": "ev",
    "se": "se", "sa": "sa", "sas": "sas", "sarl": "llc", "srl": "llc", "spa": "sa", "bv": "bv", "bvba": "bv",
    "nv": "nv", "ab": "ab", "as": "as", "asa": "asa", "aps": "aps", "oy": "oy", "oyj": "oy", "kft": "llc",
    "zrt": "zrt", "doo": "llc", "dd": "dd", "ooo": "llc", "oao": "ojsc", "ojsc": "ojsc", "zao": "cjsc",
    "cjsc": "cjsc", "pao": "pjsc", "pjsc": "pjsc", "ao": "jsc", "jsc": "jsc", "pty": "ltd", "pte": "ltd",
    "pt": "pt", "tbk": "pt", "sdn": "ltd", "bhd": "ltd", "lda": "llc", "ltda": "llc", "cv": "sa",
    "fze": "fze",
    "fzco": "fze", "fzc": "fze", "est": "est", "establishment": "est", "aktiebolag": "ab", "tov": "llc",
    "otvetstvennostyu": "llc",
}  # fmt: skip
GENERIC = _words("""
    holding holdings group groupe gruppe international global trading trade general industries industry
    industrial services service systems solutions enterprise enterprises investment investments capital
    partners fund trust bank banco banque management organization organisation association foundation
    center centre institute ministry department office national state technology technologies engineering
    construction shipping maritime marine logistics export import commercial development finance
    financial insurance
""")

NUMBERS = {
    "one": "1", "first": "1", "1st": "1", "two": "2", "second": "2", "2nd": "2", "three": "3", "third": "3",
    "3rd": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
    "ii": "2", "iii": "3", "iv": "4", "vii": "7", "viii": "8", "ix": "9", "xii": "12",
     # Vi and Xi are surnames
}  # fmt: skip
TENS = {
    "twenty": "20", "thirty": "30", "forty": "40", "fourty": "40", "fifty": "50", "sixty": "60",
    "seventy": "70",
    "eighty": "80", "ninety": "90",
}  # fmt: skip
NUMBER_WORDS = frozenset(NUMBERS) | frozenset(TENS)
ABBREVIATIONS = {
    "intl": "international", "int'l": "international", "mfg": "manufacturing", "bros": "brothers",
    "natl": "national", "govt": "government", "dept": "department", "assn": "association",
    "univ": "university",
    "labour": "labor", "organisation": "organization", "centre": "center",
}  # fmt: skip

_DIMINUTIVES = (
    "benjamin ben bibi benny", "william bill will billy willy liam", "robert bob rob bobby robbie",
    "richard dick rick ricky", "james jim jimmy jamie", "john jack johnny jon", "joseph joe joey jo",
    "michael mike mick mickey misha", "thomas tom tommy", "edward ed eddie ted ned", "charles charlie chuck",
    "elizabeth liz beth betty lisa eliza", "margaret maggie meg peggy",
    "katherine kate katie kathy cathy catherine",
    "alexander alex sasha sascha aleksandr", "alexandra sasha alex", "dmitri dima dmitry mitya",
    "vladimir vova volodya",
    "sergei serge seryozha", "ivan vanya", "mikhail misha", "nikolai kolya", "yevgeny zhenya evgeny eugene",
    "anthony tony", "andrew andy drew", "daniel dan danny", "david dave", "donald don", "gregory greg",
    "jeffrey jeff geoff", "kenneth ken", "lawrence larry", "matthew matt", "nicholas nick nico",
    "patrick pat paddy",
    "peter pete", "philip phil", "ronald ron", "samuel sam", "stephen steve steven", "timothy tim",
    "francis frank",
    "francisco paco pancho", "jose pepe", "ignacio nacho", "johannes hans johann", "heinrich heinz",
    "josef sepp",
    "giuseppe beppe peppe", "luigi gigi", "krzysztof krzys", "stanislaw staszek", "maria masha mascha",
)  # fmt: skip


def _families() -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for number, family in enumerate(_DIMINUTIVES):
        for name in family.split():
            found.setdefault(name, set()).add(number)
    return {name: frozenset(numbers) for name, numbers in found.items()}


DIMINUTIVES = _families()

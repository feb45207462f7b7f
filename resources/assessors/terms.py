"""The terms of an answer: its words, each with the symbols that belong to it.

Punctuation of sentences, quotes, brackets, markdown and dashes tell no two answers apart: "red.", "**Red**" and "(red)"
are one. A symbol that is attached to a word does: C, C++ and C# are three terms, as are A+ and A-, $5 and €5, .NET and
NET, Na⁺ and Na. What stands between words by itself, such as =, / or an arrow, is a term of its own, as is an emoji;
a relation belongs to its number, so that 5 is no part of "x < 5". Between digits . , : / - and ' belong to the number
or code that they stand in: 1.5, J45.1, 10:30, 1/2.

What cannot be told: an apostrophe is a quote (f' is f; f′ is not), an underscore and a hyphen between letters are
spaces, a question mark ends a sentence, and stars around a word are markdown.
"""

import re
import unicodedata

from resources.words import ANY_SPACELESS, fold

PLAIN = re.compile(r"[a-z\s]*[.!?]?\s*")
SIMPLE = re.compile(r"""[\w\s.,;:!?()"'-]*""")  # nothing in it has another spelling
OTHER_DIGIT = re.compile(r"(?![0-9])\d")
CURRENCY = "[$¢-¥֏؋৳฿៛\u20a0-\u20c0]"
# What is the same in another spelling, on folded text, in this order.
SPELLINGS: list[tuple[re.Pattern[str], str]] = [
    (re.compile("[\u2010-\u2013\u2212]"), "-"),
    (re.compile("[\u2014\u2015]"), " "),
    # LaTeX and markdown: \( \) \+ and formulas in $...$, as pandoc tells them from amounts of money.
    (re.compile(r"\\(?=[^\w\s])"), ""),
    (re.compile(r"\${1,2}(?=\S)([^$\n]+?)(?<=\S)\${1,2}(?!\d)"), r"\1"),
    (re.compile(r"(?<!\w)(\*+)(?=\S)([^*\n]*[^*\s])\1(?!\w)"), r"\2"),
    (re.compile(r"(?<!\w)\*\*+|\*\*+(?!\w)"), ""),
    # Bullets, headings and quotes at the beginning of a line.
    (re.compile(r"^[ \t]*(?:[+>]|#{1,6})[ \t]+(?=[^\W\d])", re.MULTILINE), ""),
    (re.compile(r"(?<!\w)n/a(?!\w)"), "n\u2215a"),
    (re.compile("<=(?![=>])"), "≤"),
    (re.compile("(?<![=-])>="), "≥"),
    (re.compile("!=+"), "≠"),
    (re.compile("♯"), "#"),
    # 5 %, 20 °C and 5 € as 5%, 20°C and €5.
    (re.compile(r"(?<=\d)\s+(?=[%‰°])"), ""),
    (re.compile(rf"(?<={CURRENCY})\s+(?=\d)"), ""),
    (re.compile(rf"(?<![\d.,])(?<!{CURRENCY})(\d[\d.,']*)\s*({CURRENCY})(?!\s*\d)"), r"\2\1"),
]


class Kinds(dict[int, str]):
    """What a character is, as one character; signs of ASCII that count stand for themselves. A table for
    `str.translate`, made as characters turn up."""

    def __missing__(self, code: int) -> str:
        self[code] = kind = self.of(chr(code))
        return kind

    def of(self, character: str) -> str:
        category = unicodedata.category(character)
        if category == "Nd":
            return "0"
        if category[0] in "LMN" or character == "\u2215":
            return "z" if ANY_SPACELESS.match(character) else "a"
        if character in "+#@^%&|=<>/\\!.,:'*~-":
            return character
        if character in "°©®™′″‴‰§♭♮":
            return "s"  # belongs to the word that it is attached to
        if "\U0001f1e6" <= character <= "\U0001f1ff":
            return "f"  # half a flag
        if "\U0001f3fb" <= character <= "\U0001f3ff":
            return "m"  # a skin tone
        return {"Sc": "$", "So": "e", "Sm": "r" if character in "≤≥≠≈±≃≅≲≳" else "o"}.get(category, " ")


KINDS = Kinds()
# Patterns on the kinds of a text's characters: a a letter, 0 a digit, z a letter of a script without spaces.
ATTACHED = r"[+#@^%$s]"  # to the end of a word, or standing alone
RELATION = r"[<>r~]\ *(?=[-+$]?\.?0)"
SIGN = r"(?<![a0z+#%s$)])(?:-(?=[$.]?0|a(?![a0z]))|--(?=[a0]))"
BEFORE = r"(?:[+#@^%$s\\]+(?=[a0z.]))?(?:\*?(?<![a0z.!?,:])[.!](?=[a0z]))?"
INSIDE = r"(?:(?<=0)[.,:/'-](?=0)|[+#@^%$s*\\]+(?=[a0]))"
TERM = re.compile(
    rf"""
    </?a[a0-]*>                                             # a tag, or a type parameter
    | -+> | =+> | <=+>? | <-+(?!0)                          # arrows
    | (?:{RELATION})? (?:{SIGN})? {BEFORE}
      (?: [a0]+ (?:{INSIDE}[a0]+)* | z+ )
      (?:{ATTACHED} | \* | -(?![-a0z>]))*
    | (?<![a0z+#%s$)])-o | em* | ff?                       # -∞, an emoji, a flag
    | &+ | /+ | \|+ | =+ | <+ | >+ | ~+ | [or] | {ATTACHED}+
    """,
    re.VERBOSE,
)


def terms(text: str) -> list[str]:
    """The terms of an answer, folded, in their order; none of one that is punctuation only."""
    plain = fold(text)
    if PLAIN.fullmatch(plain):
        return plain.strip(" \t\r\n.!?").split()
    plain = with_plain_digits(plain)
    if not SIMPLE.fullmatch(plain):
        for spelling, form in SPELLINGS:
            plain = spelling.sub(form, plain)
    kinds = plain.translate(KINDS)
    found: list[str] = []
    end, last = -1, ""
    for match in TERM.finditer(kinds):
        term = plain[match.start() : match.end()]
        if match.start() == end and term == last and match[0][0] == "e":
            found[-1] += term  # ★★★ is not ★★
        else:
            found.append("".join(term.split()))
        end, last = match.end(), term
    return found


def with_plain_digits(text: str) -> str:
    """The text with the decimal digits of any script as those of ASCII."""
    return OTHER_DIGIT.sub(lambda digit: str(unicodedata.digit(digit[0])), text)

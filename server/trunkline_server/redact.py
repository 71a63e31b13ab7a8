"""Takes secrets out of texts that leave the server: statuses, error details, logs.

Two nets: the patterns of well-known keys, and the secrets that this server was configured with, literally. A text is
looked through for cheap marks, and patterns are tried only where one stands, so that the ordinary text, with no secret
in it, costs a few microseconds a kilobyte. Bytes are asked first whether they can hold one at all, which costs one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from pydantic_core import SchemaValidator, core_schema

#: What stands where a secret stood.
MASK = "***"

#: Shorter secrets are words: masking them would make texts unreadable and hide nothing.
_SHORTEST_LITERAL = 6

_VALUE = r"[^\s\"'`,;&#<>{}()\[\]\\]"

#: Characters behind a mark that decide whether its pattern matches there.
_AHEAD = 128


@dataclass(frozen=True, slots=True)
class _Rule:
    """Masks what `pattern` matches. It is tried at each of `marks` (lower-case), which every match holds. Every pattern
    is linear in the text.
    """

    marks: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str
    #: What bytes hold, as `_plain` gives them, wherever a text in them has a match: it asks for nothing before one, and
    #: where the pattern counts characters, for no count of them. In the syntax of Rust's regex.
    hint: str
    #: Characters that a match can have before its mark.
    back: int
    #: What must follow the mark, in lower case.
    after: re.Pattern[str] | None

    def matches(self, text: str, lower: str) -> Iterator[re.Match[str]]:
        """In order, as `pattern.finditer(text)`."""
        found = []
        for mark in self.marks:
            at = lower.find(mark)
            while at >= 0:
                found.append((at, at + len(mark)))
                at = lower.find(mark, at + 1)
        end = 0
        for at, behind in sorted(found):
            if at < end or (self.after is not None and self.after.match(lower, behind) is None):
                continue
            match = None
            if not self.back:
                match = self.pattern.match(text, at)
            elif near := self.pattern.search(text, max(end, at - self.back), behind + _AHEAD):
                match = self.pattern.match(text, near.start())
            if match is not None:
                yield match
                end = match.end()


def _masked(rule: _Rule, text: str, lower: str) -> str:
    if len(lower) != len(text):  # places in one are none in the other
        return rule.pattern.sub(rule.replacement, text)
    pieces: list[str] = []
    end = 0
    for match in rule.matches(text, lower):
        pieces += (text[end : match.start()], match.expand(rule.replacement))
        end = match.end()
    return "".join((*pieces, text[end:])) if pieces else text


def _rule(marks: str, pattern: str, hint: str, replacement: str = MASK, *, back: int = 0, after: str = "") -> _Rule:
    behind = re.compile(after, re.ASCII) if after else None
    return _Rule(tuple(marks.split("|")), re.compile(pattern, re.ASCII), replacement, hint, back, behind)


# Order matters: what has a form of its own comes before what is only known by the name in front of it.
# OpenAI (sk-proj-, sk-svcacct-), Anthropic (sk-ant-), OpenRouter (sk-or-), DeepSeek and others; also half masked.
_SK = _rule("sk-", r"(?<![A-Za-z0-9])sk-[\w*-]{3,}", r"sk-[a-z0-9_*-]{3}", "sk-" + MASK)
# Google API keys and OAuth access tokens.
_GOOGLE = _rule("aiza", r"AIza[\w*-]{10,}", r"aiza[a-z0-9_*-]{10}", "AIza" + MASK)
_YA29 = _rule("ya29.", r"ya29\.[\w.-]{10,}", r"ya29\.[a-z0-9_.-]{10}", "ya29." + MASK)
# xAI, Groq, Hugging Face, Perplexity, NVIDIA, Cerebras, Replicate, Fireworks, GitHub, Together ...
_PREFIXES = _rule(
    "xai-|gsk_|hf_|pplx-|nvapi-|csk-|r8_|fw_|ghp_|gho_|ghs_|github_pat_|tgp_v1_|jina_|pa-",
    r"(?<![A-Za-z0-9])(xai-|gsk_|hf_|pplx-|nvapi-|csk-|r8_|fw_|gh[pos]_|github_pat_|tgp_v1_|jina_|pa-)[\w*-]{12,}",
    r"(?:xai-|gsk_|hf_|pplx-|nvapi-|csk-|r8_|fw_|gh[pos]_|github_pat_|tgp_v1_|jina_|pa-)[a-z0-9_*-]{12}",
    r"\g<1>" + MASK,
)
# AWS access key ids, and keys of Bedrock.
_AWS = _rule("akia|asia", r"(?<![A-Za-z0-9])(AKIA|ASIA)[A-Z0-9]{12,}", r"(?:akia|asia)[a-z0-9]{12}", r"\g<1>" + MASK)
_BEDROCK = _rule(
    "bedrock-api-key-|absk",
    r"(?<![A-Za-z0-9])(bedrock-api-key-|ABSK)[\w+/=-]{16,}",
    r"(?:bedrock-api-key-|absk)[a-z0-9_+/=-]{16}",
    r"\g<1>" + MASK,
)
# JSON web tokens.
_JWT = _rule(
    "eyj",
    r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?",
    r"eyj[a-z0-9_-]{8,}\.[a-z0-9_-]{4}",
    "eyJ" + MASK,
)
# Private keys; without an end the rest of the text is the key.
_PRIVATE = _rule(
    "-----begin ",
    r"(?s)-----BEGIN ([A-Z ]{0,20})PRIVATE KEY-----.*?(?:-----END \1PRIVATE KEY-----|\Z)",
    r"-----begin [a-z ]{0,20}private key-----",
    "-----BEGIN PRIVATE KEY----- " + MASK,
)
# Authorization: Bearer ... and Basic ...; "bearer authentication" is English and stays.
_BEARER = _rule(
    "bearer",
    r"(?i)\b(bearer)[ \t]{1,4}(?=[\w.~+/=*-]{0,19}[\d*]|[\w.~+/=*-]{20})[\w.~+/=*-]+",
    r"bearer[ \t]{1,4}(?:[a-z0-9_.~+/=*-]{0,19}[0-9*]|[a-z0-9_.~+/=*-]{20})",
    r"\g<1> " + MASK,
)
_BASIC = _rule(
    "authorization",
    r"(?i)(authorization\W{1,8}basic)[ \t]{1,4}[\w+/=*-]+",
    r"authorization[^a-z0-9_]+basic[ \t]",
    r"\g<1> " + MASK,
)
# Passwords in URLs, and secrets in their queries.
_URL = _rule(
    "://",
    r"://[^\s/?#:@\"'<>]{0,256}:[^\s/?#@\"'<>]{1,1024}@",
    r"://[^\s/?#:@\"'<>]*:[^\s/?#@\"'<>]+@",
    f"://{MASK}@",
)
_QUERY = _rule(
    "key=|token=|sig=|signature=|secret=|password=|credential=|code=",
    r"(?i)(?<![a-z0-9])((?:x-amz-|x-goog-)?(?:[a-z]{1,20}[_-]){0,3}"
    r"(?:key|apikey|token|sig|signature|secret|password|credential|code))=[^\s\"'&#,;<>]{3,}",
    r"(?:key|token|sig|signature|secret|password|credential|code)=[^\s\"'&#,;<>]{3}",
    r"\g<1>=" + MASK,
    back=76,
)
# Named values: "api_key": "...", x-api-key: ..., session_token = ...; "API key: must be set" is English and stays.
_NAMED = _rule(
    "key|token|authorization",
    r"(?i)((?<![a-z])(?:api|access|secret|private|session|auth|security|refresh|bearer|subscription|id)[-_ ]?"
    r"(?:access[-_ ]?)?(?:key|token)|authorization)(\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?)"
    r"(?!bearer\b|basic\b)(?=" + _VALUE + r"{0,15}[\d*]|" + _VALUE + r"{16})" + _VALUE + r"{6,}",
    # What may stand before the name is left out: words as frequent as "id" would have to be looked for.
    r"(?:key|token|authorization)\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?(?:" + _VALUE + "{0,60}[0-9*]|" + _VALUE + "{16})",
    r"\g<1>\g<2>" + MASK,
    back=24,
    after=r"\\?[\"']?\s{0,4}[:=]",
)
_PASSWORD = _rule(
    "password|passwd|secret",
    r"(?i)(password|passwd|client[-_ ]?secret|secret[-_ ]?access[-_ ]?key)(\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"'])"
    r"[^\"'\\]{1,1024}",
    r"(?:passw(?:or)?d|secret(?:[-_ ]?access[-_ ]?key)?)\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"'][^\"'\\]",
    r"\g<1>\g<2>" + MASK,
    back=12,
    after=r"(?:[-_ ]?access[-_ ]?key)?\\?[\"']?\s{0,4}[:=]",
)

_RULES = (
    _SK, _GOOGLE, _YA29, _PREFIXES, _AWS, _BEDROCK, _JWT, _PRIVATE, _BEARER, _BASIC, _URL, _QUERY, _NAMED, _PASSWORD
)  # fmt: skip


def _finder(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Does a text match one of these? The engine is Rust's, which looks for what all matches begin with many bytes at a
    time: 10 KB take four microseconds, where `re` takes as long for each pattern.
    """
    return SchemaValidator(core_schema.str_schema(pattern="|".join(patterns))).isinstance_python


_holds_hint = _finder(rule.hint for rule in _RULES)

#: Lower case, and ASCII, in which no text needs to be encoded to be looked through. What takes the place of other
#: characters stands in no class of a hint but those that exclude some.
_PLAIN = bytes(byte if byte < 128 else 127 for byte in range(256)).lower()

#: Characters of a secret that are looked for first.
_WINDOW = 8
#: No secret is longer than this, unless a configured one is.
_LONGEST = 512


class Redactor:
    """Masks secrets: `redact(text)` gives the text without them. Made once, and called from anywhere."""

    __slots__ = ("_holds_window", "_literals", "_longest", "_secrets")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """`secrets`: the keys that the server is configured with; masked as they are, as URL text and as JSON text."""
        self._secrets: frozenset[str] = frozenset()
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Masks these too, from now on."""
        self._secrets |= frozenset(secrets)
        forms = {
            form
            for secret in self._secrets
            if len(secret) >= _SHORTEST_LITERAL
            for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1])
        }
        # The longest first, so that no tail stays of a secret that begins as another one does.
        ordered = sorted(forms, key=len, reverse=True)
        self._literals = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        windows = {re.escape(_window(_plain(form.encode()))) for form in ordered}
        self._holds_window = _finder(sorted(windows)) if windows else None
        self._longest = max([_LONGEST, *map(len, forms)])

    def __call__(self, text: str) -> str:
        if self._literals is not None:
            text = self._literals.sub(MASK, text)
        lower = text.lower()
        for rule in _RULES:
            masked = _masked(rule, text, lower)
            if masked is not text:
                text, lower = masked, masked.lower()
        return text

    def suspects(self, data: bytes) -> bool:
        """False: no text that lies in these bytes, whatever lies between, holds a secret."""
        text = _plain(data)
        return _holds_hint(text) or (self._holds_window is not None and self._holds_window(text))

    def head(self, text: str, characters: int) -> str:
        """The redacted beginning of a text of any length, at most `characters` long, in time that they bound.

        Holds no half of a secret: what is looked at goes beyond what is returned by the longest secret.
        """
        if len(text) <= characters + self._longest:
            return self(text)[:characters]
        return self(text[: characters + self._longest])[: -self._longest]

    def __repr__(self) -> str:
        return f"Redactor({'patterns and literals' if self._literals else 'patterns'})"


def _plain(data: bytes) -> str:
    return data.translate(_PLAIN).decode("ascii")


def _window(form: str) -> str:
    """The part of a secret that is least like a word, so that few texts hold it by chance."""
    parts = [form[at : at + _WINDOW] for at in range(max(1, len(form) - _WINDOW + 1))]
    return max(parts, key=lambda part: sum(not character.isalpha() for character in part))


#: Knows no configured secrets.
redact = Redactor()

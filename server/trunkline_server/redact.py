"""Takes secrets out of texts that leave the server: statuses, error details, logs.

Two nets: the patterns of well-known keys, and the secrets that this server was configured with, literally. A text is
looked through for cheap marks, and patterns are tried only where one stands, so that the ordinary text, with no secret
in it, costs a few microseconds a kilobyte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import AnyStr, Generic
from urllib.parse import quote

#: What stands where a secret stood.
MASK = "***"

#: Shorter secrets are words: masking them would make texts unreadable and hide nothing.
_SHORTEST_LITERAL = 6

_VALUE = r"[^\s\"'`,;&#<>{}()\[\]\\]"


#: Characters behind a mark that decide whether its pattern matches there.
_AHEAD = 128


@dataclass(frozen=True, slots=True)
class _Rule(Generic[AnyStr]):
    """Masks what `pattern` matches. It is tried at each of `marks` (lower-case), which every match holds. Every pattern
    is linear in the text.
    """

    marks: tuple[AnyStr, ...]
    pattern: re.Pattern[AnyStr]
    replacement: str
    #: Characters that a match can have before its mark.
    back: int
    #: What must follow the mark, in lower case.
    after: re.Pattern[AnyStr] | None

    def matches(self, text: AnyStr, lower: AnyStr) -> Iterator[re.Match[AnyStr]]:
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


def _masked(rule: _Rule[str], text: str, lower: str) -> str:
    if len(lower) != len(text):  # places in one are none in the other
        return rule.pattern.sub(rule.replacement, text)
    pieces: list[str] = []
    end = 0
    for match in rule.matches(text, lower):
        pieces += (text[end : match.start()], match.expand(rule.replacement))
        end = match.end()
    return "".join((*pieces, text[end:])) if pieces else text


#: What a pattern asks of the characters before its match.
_BEFORE = re.compile(r"\(\?<!\[[^\]]*\]\)|(?<=^\(\?i\))\\b")


@dataclass(frozen=True, slots=True)
class _Pair:
    """A rule for texts, and one for bytes in which texts lie: that one matches whatever stands before, so that it has a
    match wherever a text has one.
    """

    exact: _Rule[str]
    loose: _Rule[bytes]


def _rule(marks: str, pattern: str, replacement: str = MASK, *, back: int = 0, after: str = "") -> _Pair:
    names = tuple(marks.split("|"))
    return _Pair(
        _Rule(names, re.compile(pattern, re.ASCII), replacement, back, re.compile(after, re.ASCII) if after else None),
        _Rule(
            tuple(name.encode() for name in names),
            re.compile(_BEFORE.sub("", pattern).encode()),
            "",
            back,
            re.compile(after.encode()) if after else None,
        ),
    )


# Order matters: what has a form of its own comes before what is only known by the name in front of it.
# OpenAI (sk-proj-, sk-svcacct-), Anthropic (sk-ant-), OpenRouter (sk-or-), DeepSeek and others; also half masked.
_SK = _rule("sk-", r"(?<![A-Za-z0-9])sk-[\w*-]{3,}", "sk-" + MASK)
# Google API keys and OAuth access tokens.
_GOOGLE = _rule("aiza", r"AIza[\w*-]{10,}", "AIza" + MASK)
_YA29 = _rule("ya29.", r"ya29\.[\w.-]{10,}", "ya29." + MASK)
# xAI, Groq, Hugging Face, Perplexity, NVIDIA, Cerebras, Replicate, Fireworks, GitHub, Together ...
_PREFIXES = _rule(
    "xai-|gsk_|hf_|pplx-|nvapi-|csk-|r8_|fw_|ghp_|gho_|ghs_|github_pat_|tgp_v1_|jina_|pa-",
    r"(?<![A-Za-z0-9])(xai-|gsk_|hf_|pplx-|nvapi-|csk-|r8_|fw_|gh[pos]_|github_pat_|tgp_v1_|jina_|pa-)[\w*-]{12,}",
    r"\g<1>" + MASK,
)
# AWS access key ids, and keys of Bedrock.
_AWS = _rule("akia|asia", r"(?<![A-Za-z0-9])(AKIA|ASIA)[A-Z0-9]{12,}", r"\g<1>" + MASK)
_BEDROCK = _rule("bedrock-api-key-|absk", r"(?<![A-Za-z0-9])(bedrock-api-key-|ABSK)[\w+/=-]{16,}", r"\g<1>" + MASK)
# JSON web tokens.
_JWT = _rule("eyj", r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?", "eyJ" + MASK)
# Private keys; without an end the rest of the text is the key.
_PRIVATE = _rule(
    "-----begin ",
    r"(?s)-----BEGIN ([A-Z ]{0,20})PRIVATE KEY-----.*?(?:-----END \1PRIVATE KEY-----|\Z)",
    "-----BEGIN PRIVATE KEY----- " + MASK,
)
# Authorization: Bearer ... and Basic ...; "bearer authentication" is English and stays.
_BEARER = _rule(
    "bearer", r"(?i)\b(bearer)[ \t]{1,4}(?=[\w.~+/=*-]{0,19}[\d*]|[\w.~+/=*-]{20})[\w.~+/=*-]+", r"\g<1> " + MASK
)
_BASIC = _rule("authorization", r"(?i)(authorization\W{1,8}basic)[ \t]{1,4}[\w+/=*-]+", r"\g<1> " + MASK)
# Passwords in URLs, and secrets in their queries.
_URL = _rule("://", r"://[^\s/?#:@\"'<>]{0,256}:[^\s/?#@\"'<>]{1,1024}@", f"://{MASK}@")
_QUERY = _rule(
    "key=|token=|sig=|signature=|secret=|password=|credential=|code=",
    r"(?i)(?<![a-z0-9])((?:x-amz-|x-goog-)?(?:[a-z]{1,20}[_-]){0,3}"
    r"(?:key|apikey|token|sig|signature|secret|password|credential|code))=[^\s\"'&#,;<>]{3,}",
    r"\g<1>=" + MASK,
    back=76,
)
# Named values: "api_key": "...", x-api-key: ..., session_token = ...; "API key: must be set" is English and stays.
_NAMED = _rule(
    "key|token|authorization",
    r"(?i)((?<![a-z])(?:api|access|secret|private|session|auth|security|refresh|bearer|subscription|id)[-_ ]?"
    r"(?:access[-_ ]?)?(?:key|token)|authorization)(\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?)"
    r"(?!bearer\b|basic\b)(?=" + _VALUE + r"{0,15}[\d*]|" + _VALUE + r"{16})" + _VALUE + r"{6,}",
    r"\g<1>\g<2>" + MASK,
    back=24,
    after=r"\\?[\"']?\s{0,4}[:=]",
)
_PASSWORD = _rule(
    "password|passwd|secret",
    r"(?i)(password|passwd|client[-_ ]?secret|secret[-_ ]?access[-_ ]?key)(\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"'])"
    r"[^\"'\\]{1,1024}",
    r"\g<1>\g<2>" + MASK,
    back=12,
    after=r"(?:[-_ ]?access[-_ ]?key)?\\?[\"']?\s{0,4}[:=]",
)

_RULES = (
    _SK, _GOOGLE, _YA29, _PREFIXES, _AWS, _BEDROCK, _JWT, _PRIVATE, _BEARER, _BASIC, _URL, _QUERY, _NAMED, _PASSWORD
)  # fmt: skip

#: What bytes hold if any of these rules matches in them, and whether in lower case. Each begins with a character that
#: is rare in texts: a kilobyte without one is passed over in half a microsecond.
_ANCHORS: tuple[tuple[re.Pattern[bytes] | bytes, bool, tuple[_Pair, ...]], ...] = (
    (b"@", False, (_URL,)),
    (re.compile(rb"J(?<=eyJ)"), False, (_JWT,)),
    (re.compile(rb"A(?=Iza|KIA|SIA|BSK)"), False, (_GOOGLE, _AWS, _BEDROCK)),
    (re.compile(rb"9(?<=ya29)\."), False, (_YA29,)),
    (re.compile(rb"z(?<=authoriz)"), True, (_BASIC, _NAMED)),
    (re.compile(rb"-(?:(?<=sk-|ai-|lx-|pi-|pa-|ey-)|(?=begin ))"), True, (_SK, _PREFIXES, _BEDROCK, _PRIVATE)),
    (re.compile(rb"_(?<=sk_|hf_|r8_|fw_|hp_|ho_|hs_|at_|v1_|na_)"), True, (_PREFIXES,)),
    (re.compile(rb"=(?<=ey=|en=|ig=|re=|et=|rd=|al=|de=)"), True, (_QUERY,)),
    (re.compile(rb"k(?:ey|(?<=tok)en)\\?[\"']?\s{0,4}[:=]"), True, (_NAMED,)),
    (b"bearer", True, (_BEARER,)),
    (b"passw", True, (_PASSWORD,)),
    (b"secret", True, (_PASSWORD,)),
)

#: Characters of a secret that are looked for first.
_WINDOW = 4
#: No secret is longer than this, unless a configured one is.
_LONGEST = 512


class Redactor:
    """Masks secrets: `redact(text)` gives the text without them. Made once, and called from anywhere."""

    __slots__ = ("_literals", "_longest", "_secrets", "_windows")

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
        self._windows = [_window(form.encode()) for form in ordered]
        self._longest = max([_LONGEST, *map(len, forms)])

    def __call__(self, text: str) -> str:
        if self._literals is not None:
            text = self._literals.sub(MASK, text)
        lower = text.lower()
        for rule in _RULES:
            masked = _masked(rule.exact, text, lower)
            if masked is not text:
                text, lower = masked, masked.lower()
        return text

    def suspects(self, data: bytes) -> bool:
        """False: no text that lies in these bytes, whatever lies between, holds a secret."""
        for window, form in self._windows:
            if window in data and form in data:
                return True
        lower = data.lower()
        for anchor, in_lower, rules in _ANCHORS:
            where = lower if in_lower else data
            if (anchor in where) if isinstance(anchor, bytes) else anchor.search(where):
                for rule in rules:
                    if next(rule.loose.matches(data, lower), None) is not None:
                        return True
        return False

    def head(self, text: str, characters: int) -> str:
        """The redacted beginning of a text of any length, at most `characters` long, in time that they bound.

        Holds no half of a secret: what is looked at goes beyond what is returned by the longest secret.
        """
        if len(text) <= characters + self._longest:
            return self(text)[:characters]
        return self(text[: characters + self._longest])[: -self._longest]

    def __repr__(self) -> str:
        return f"Redactor({'patterns and literals' if self._literals else 'patterns'})"


def _window(form: bytes) -> tuple[bytes, bytes]:
    """The part of a secret that is least like a word, which is found fastest, and the secret."""
    parts = [form[at : at + _WINDOW] for at in range(len(form) - _WINDOW + 1)]
    return max(parts, key=lambda part: sum(not chr(byte).islower() for byte in part)), form


#: Knows no configured secrets.
redact = Redactor()

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
    #: The same for bytes, whatever stands before: matches wherever a text that lies in them has a match.
    loose: _Rule[bytes] | None = None

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


def _rule(marks: str, pattern: str, replacement: str = MASK, *, back: int = 0, after: str = "") -> _Rule[str]:
    names = tuple(marks.split("|"))
    loose = _Rule(
        tuple(name.encode() for name in names),
        re.compile(_BEFORE.sub("", pattern).encode()),
        "",
        back,
        re.compile(after.encode()) if after else None,
    )
    follows = re.compile(after, re.ASCII) if after else None
    return _Rule(names, re.compile(pattern, re.ASCII), replacement, back, follows, loose)


# Order matters: what has a form of its own comes before what is only known by the name in front of it.
_RULES = (
    # OpenAI (sk-proj-, sk-svcacct-), Anthropic (sk-ant-), OpenRouter (sk-or-), DeepSeek and others; also half masked.
    _rule("sk-", r"(?<![A-Za-z0-9])sk-[\w*-]{3,}", "sk-" + MASK),
    # Google API keys and OAuth access tokens.
    _rule("aiza", r"AIza[\w*-]{10,}", "AIza" + MASK),
    _rule("ya29.", r"ya29\.[\w.-]{10,}", "ya29." + MASK),
    # xAI, Groq, Hugging Face, Perplexity, NVIDIA, Cerebras, Replicate, Fireworks, GitHub, Together ...
    _rule(
        "xai-|gsk_|hf_|pplx-|nvapi-|csk-|r8_|fw_|ghp_|gho_|ghs_|github_pat_|tgp_v1_|jina_|pa-|voyage",
        r"(?<![A-Za-z0-9])(xai-|gsk_|hf_|pplx-|nvapi-|csk-|r8_|fw_|gh[pos]_|github_pat_|tgp_v1_|jina_|pa-)[\w*-]{12,}",
        r"\g<1>" + MASK,
    ),
    # AWS access key ids, and keys of Bedrock.
    _rule("akia|asia", r"(?<![A-Za-z0-9])(AKIA|ASIA)[A-Z0-9]{12,}", r"\g<1>" + MASK),
    _rule("bedrock-api-key-|absk", r"(?<![A-Za-z0-9])(bedrock-api-key-|ABSK)[\w+/=-]{16,}", r"\g<1>" + MASK),
    # JSON web tokens.
    _rule("eyj", r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?", "eyJ" + MASK),
    # Private keys; without an end the rest of the text is the key.
    _rule(
        "-----begin ",
        r"(?s)-----BEGIN ([A-Z ]{0,20})PRIVATE KEY-----.*?(?:-----END \1PRIVATE KEY-----|\Z)",
        "-----BEGIN PRIVATE KEY----- " + MASK,
    ),
    # Authorization: Bearer ... and Basic ...; "bearer authentication" is English and stays.
    _rule(
        "bearer", r"(?i)\b(bearer)[ \t]{1,4}(?=[\w.~+/=*-]{0,19}[\d*]|[\w.~+/=*-]{20})[\w.~+/=*-]+", r"\g<1> " + MASK
    ),
    _rule("authorization", r"(?i)(authorization\W{1,8}basic)[ \t]{1,4}[\w+/=*-]+", r"\g<1> " + MASK),
    # Passwords in URLs, and secrets in their queries.
    _rule("://", r"://[^\s/?#:@\"'<>]{0,256}:[^\s/?#@\"'<>]{1,1024}@", f"://{MASK}@"),
    _rule(
        "key=|token=|sig=|signature=|secret=|password=|credential=|code=",
        r"(?i)(?<![a-z0-9])((?:x-amz-|x-goog-)?(?:[a-z]{1,20}[_-]){0,3}"
        r"(?:key|apikey|token|sig|signature|secret|password|credential|code))=[^\s\"'&#,;<>]{3,}",
        r"\g<1>=" + MASK,
        back=76,
    ),
    # Named values: "api_key": "...", x-api-key: ..., session_token = ...; "API key: must be set" is English and stays.
    _rule(
        "key|token|authorization",
        r"(?i)((?<![a-z])(?:api|access|secret|private|session|auth|security|refresh|bearer|subscription|id)[-_ ]?"
        r"(?:access[-_ ]?)?(?:key|token)|authorization)(\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?)"
        r"(?!bearer\b|basic\b)(?=" + _VALUE + r"{0,15}[\d*]|" + _VALUE + r"{16})" + _VALUE + r"{6,}",
        r"\g<1>\g<2>" + MASK,
        back=24,
        after=r"\\?[\"']?\s{0,4}[:=]",
    ),
    _rule(
        "password|passwd|secret",
        r"(?i)(password|passwd|client[-_ ]?secret|secret[-_ ]?access[-_ ]?key)(\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"'])"
        r"[^\"'\\]{1,1024}",
        r"\g<1>\g<2>" + MASK,
        back=12,
        after=r"(?:[-_ ]?access[-_ ]?key)?\\?[\"']?\s{0,4}[:=]",
    ),
)

#: So many configured secrets are looked for one by one.
_FEW = 100
#: No secret is longer than this, unless a configured one is.
_LONGEST = 512


class Redactor:
    """Masks secrets: `redact(text)` gives the text without them. Made once, and called from anywhere."""

    __slots__ = ("_few", "_literals", "_longest", "_many")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """`secrets`: the keys that the server is configured with; masked as they are, as URL text and as JSON text."""
        forms = {
            form
            for secret in secrets
            if len(secret) >= _SHORTEST_LITERAL
            for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1])
        }
        # The longest first, so that no tail stays of a secret that begins as another one does.
        ordered = sorted(forms, key=len, reverse=True)
        self._literals = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        # A few are found faster one by one than by a pattern.
        self._few = [form.encode() for form in ordered] if len(ordered) <= _FEW else []
        self._many = re.compile(b"|".join(re.escape(form.encode()) for form in ordered)) if not self._few else None
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
        if any(form in data for form in self._few):
            return True
        if self._literals is not None and self._many is not None and self._many.search(data):
            return True
        lower = data.lower()
        return any(next(rule.loose.matches(data, lower), None) is not None for rule in _RULES if rule.loose is not None)

    def head(self, text: str, characters: int) -> str:
        """The redacted beginning of a text of any length, at most `characters` long, in time that they bound.

        Holds no half of a secret: what is looked at goes beyond what is returned by the longest secret.
        """
        if len(text) <= characters + self._longest:
            return self(text)[:characters]
        return self(text[: characters + self._longest])[: -self._longest]

    def __repr__(self) -> str:
        return f"Redactor({'patterns and literals' if self._literals else 'patterns'})"


#: Knows no configured secrets.
redact = Redactor()

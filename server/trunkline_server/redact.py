"""Takes secrets out of texts that leave the server: statuses, error details, logs.

Two nets: the patterns of well-known keys, and the secrets that this server was configured with, literally. A text is
looked through for cheap marks first, so that the ordinary one, with no secret in it, costs a few microseconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

#: What stands where a secret stood.
MASK = "***"

#: Shorter secrets are words: masking them would make texts unreadable and hide nothing.
_SHORTEST_LITERAL = 6

_VALUE = r"[^\s\"'`,;&#<>{}()\[\]\\]"


@dataclass(frozen=True, slots=True)
class _Rule:
    """Runs `pattern` over texts that hold one of `marks` (lower-case). Every pattern is linear in the text."""

    marks: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str = MASK


def _rule(marks: str, pattern: str, replacement: str = MASK) -> _Rule:
    return _Rule(tuple(marks.split("|")), re.compile(pattern, re.ASCII), replacement)


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
        "private key-----",
        r"(?s)-----BEGIN ([A-Z ]{0,20})PRIVATE KEY-----.*?(?:-----END \1PRIVATE KEY-----|\Z)",
        "-----BEGIN PRIVATE KEY----- " + MASK,
    ),
    # Authorization: Bearer ... and Basic ...; "bearer authentication" is English and stays.
    _rule(
        "bearer", r"(?i)\b(bearer)[ \t]{1,4}(?=[\w.~+/=*-]{0,19}[\d*]|[\w.~+/=*-]{20})[\w.~+/=*-]+", r"\g<1> " + MASK
    ),
    _rule("basic", r"(?i)(authorization\W{1,8}basic)[ \t]{1,4}[\w+/=*-]+", r"\g<1> " + MASK),
    # Passwords in URLs, and secrets in their queries.
    _rule("://", r"://[^\s/?#:@\"'<>]{0,256}:[^\s/?#@\"'<>]{1,1024}@", f"://{MASK}@"),
    _rule(
        "key=|token=|sig=|signature=|secret=|password=|credential=|code=",
        r"(?i)(?<![a-z0-9])((?:x-amz-|x-goog-)?(?:[a-z]{1,20}[_-]){0,3}"
        r"(?:key|apikey|token|sig|signature|secret|password|credential|code))=[^\s\"'&#,;<>]{3,}",
        r"\g<1>=" + MASK,
    ),
    # Named values: "api_key": "...", x-api-key: ..., session_token = ...; "API key: must be set" is English and stays.
    _rule(
        "key|token|authorization",
        r"(?i)((?<![a-z])(?:api|access|secret|private|session|auth|security|refresh|bearer|subscription|id)[-_ ]?"
        r"(?:access[-_ ]?)?(?:key|token)|authorization)(\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?)"
        r"(?!bearer\b|basic\b)(?=" + _VALUE + r"{0,15}[\d*]|" + _VALUE + r"{16})" + _VALUE + r"{6,}",
        r"\g<1>\g<2>" + MASK,
    ),
    _rule(
        "password|passwd|secret",
        r"(?i)(password|passwd|client[-_ ]?secret|secret[-_ ]?access[-_ ]?key)(\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"'])"
        r"[^\"'\\]{1,1024}",
        r"\g<1>\g<2>" + MASK,
    ),
)

#: No secret is longer than this, unless a configured one is.
_LONGEST = 512


class Redactor:
    """Masks secrets: `redact(text)` gives the text without them. Made once, and called from anywhere."""

    __slots__ = ("_literals", "_longest")

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
        self._longest = max([_LONGEST, *map(len, forms)])

    def __call__(self, text: str) -> str:
        if self._literals is not None:
            text = self._literals.sub(MASK, text)
        lower = text.lower()
        for rule in _RULES:
            for mark in rule.marks:
                if mark in lower:
                    text = rule.pattern.sub(rule.replacement, text)
                    break
        return text

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

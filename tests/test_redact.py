"""What is masked, what is left alone, and that no text makes it slow."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline_server import redact as redacting
from trunkline_server.redact import MASK, Redactor, redact

SECRETS = {
    "openai": "sk-abcdefghijklmnopqrstuvwxyz012345",
    "openai project": "sk-proj-A1b2_C3d4-e5F6g7H8i9J0kLmNoPqRsTuV",
    "short": "sk-123",
    "half masked by the provider": "sk-ab***********************wxyz",
    "anthropic": "sk-ant-api03-Zm9vYmFy_abc-DEF123456789",
    "openrouter": "sk-or-v1-0123456789abcdef0123456789abcdef",
    "google": "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "google oauth": "ya29.a0AfH6SMBx-1234567890_abcdef",
    "xai": "xai-0123456789abcdefABCDEF0123456789",
    "groq": "gsk_0123456789abcdefABCDEFGHIJ",
    "hugging face": "hf_abcdefghijklmnopqrstuvwxyz",
    "perplexity": "pplx-0123456789abcdef0123456789abcdef",
    "nvidia": "nvapi-0123456789_abcdef-0123456789",
    "github": "ghp_0123456789abcdefABCDEF012345678901",
    "aws key id": "AKIAIOSFODNN7EXAMPLE",
    "aws temporary key id": "ASIAIOSFODNN7EXAMPLE",
    "bedrock": "ABSKQmVkcm9ja0FQSUtleS1hYmNkZWZnaGlqa2xtbm9w",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "Incorrect API key provided: {}. You can find your key in the console.",
        '{{"error":{{"message":"bad key {}"}}}}',
        "(key='{}')",
        "a, {}, b",
        "first {0} and again {0}",
    ],
)
def test_a_well_known_key_is_masked_wherever_it_stands(secret: str, text: str) -> None:
    redacted = redact(text.format(secret))

    assert MASK in redacted
    assert secret not in redacted
    assert secret[8:] not in redacted or len(secret) <= 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abc123def456", "Authorization: Bearer ***"),
        ('{"authorization":"Bearer opaquetokenwithoutdigits"}', '{"authorization":"Bearer ***"}'),
        ("authorization: Basic dXNlcjpwYXNzd29yZA==", "authorization: Basic ***"),
        ("GET https://user:hunter2@proxy.example:8080/x", "GET https://***@proxy.example:8080/x"),
        ("https://:hunter2@proxy.example/", "https://***@proxy.example/"),
        ("https://g.example/v1/models?key=abc123&alt=sse", "https://g.example/v1/models?key=***&alt=sse"),
        ("/x?api_key=abcdef#top", "/x?api_key=***#top"),
        ("/x?X-Amz-Signature=0a1b2c&X-Amz-Expires=60", "/x?X-Amz-Signature=***&X-Amz-Expires=60"),
        ('{"api_key": "0123456789"}', '{"api_key": "***"}'),
        (r"{\"api_key\":\"0123456789\"}", r"{\"api_key\":\"***\"}"),
        ("x-api-key: 0123456789abcdef", "x-api-key: ***"),
        ("api-key=0123456789abcdef", "api-key=***"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "aws_secret_access_key = ***"),
        ('{"password":"hunter"}', '{"password":"***"}'),
        ('"client_secret": "correct horse"', '"client_secret": "***"'),
        (
            "a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b",
            "a -----BEGIN PRIVATE KEY----- *** b",
        ),
        ("a -----BEGIN PRIVATE KEY-----\nMIIE", "a -----BEGIN PRIVATE KEY----- ***"),
    ],
)
def test_a_value_is_masked_by_what_stands_before_it(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The model `gpt-5.2` does not exist or you do not have access to it.",
        "You need to provide your API key in an Authorization header using Bearer auth",
        "bearer authentication is required",
        "basic authentication is not supported",
        "API key: must be set in the environment",
        "This model's maximum context length is 8192 tokens; your max_tokens: 100000 is too large",
        "risk-averse and task-based",
        "locale sk-SK",
        "see https://platform.openai.com/account/api-keys for details",
        "https://example.com/a?monkey=banana&page=2",
        "mailto:someone@example.com at 12:30@home",
        '{"usage":{"prompt_tokens":12,"completion_tokens":3456789012345678}}',
        "org-abc123 on tokens per min (TPM): Limit 200000, Used 199999",
        "grüße, 世界 🎉",
    ],
)
def test_an_ordinary_text_is_left_alone(text: str) -> None:
    assert redact(text) == text


def test_configured_secrets_are_masked_literally_and_as_url_and_json_text() -> None:
    redactor = Redactor(['p"a/s s+word', "tail-of", "tail-of-longer"])

    assert redactor('x p"a/s s+word y') == "x *** y"
    assert redactor("?q=p%22a%2Fs%20s%2Bword&r=1") == "?q=***&r=1"
    assert redactor(r'{"k":"p\"a/s s+word"}') == '{"k":"***"}'
    assert redactor("tail-of-longer tail-of") == "*** ***"


@given(
    before=st.binary(max_size=6),
    text=st.sampled_from(
        [
            *SECRETS.values(),
            "Authorization: Bearer abc123def456",
            "authorization: Basic dXNlcjpwYXNzd29yZA==",
            "x://user:hunter2@proxy/",
            "?api_key=abcdef",
            "&X-Amz-Signature=0a1b2c",
            '"session_token": "0123456789"',
            '"password":"hunter"',
            "secret_access_key = 'wJalrXUtnFEMI'",
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
            "configured-Secret-1",
            "ends.in-configured-Secret-1",
            "pässwörd-世界",
            "x://世界:пароль🎉@proxy/",
            "?token=世界🎉",
            "API_KEY\n=\n'世界世界世界世界世界世界世界世1",
            "authorization: 🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉",
            "Authorization🎉🎉🎉🎉🎉🎉🎉🎉Basic\tx",
            "PASSWORD = '🎉'",
        ]
    ),
    around=st.text(max_size=20),
    after=st.binary(max_size=6),
)
def test_bytes_in_which_a_secret_lies_are_suspect_whatever_lies_around(
    before: bytes, text: str, around: str, after: bytes
) -> None:
    redactor = Redactor(["configured-Secret-1", "pässwörd-世界"])
    if redactor(around + text) != around + text:
        assert redactor.suspects(before + (around + text).encode("utf-8", "surrogatepass") + after)


def test_one_of_thousands_of_secrets_is_found_in_bytes() -> None:
    secrets = [f"a key with the number {number:05} of 3000" for number in range(3000)]
    redactor = Redactor(secrets)

    assert redactor.suspects(b"x" * 1000 + secrets[2345].encode() + b"x" * 1000)


def test_ordinary_bytes_are_not_suspect() -> None:
    text = "The quick brown fox; max_tokens: 100, well-known, see https://example.com/a?b=c and 'keys'."
    assert not Redactor(["configured-Secret-1"]).suspects(text.encode() * 50)


@given(
    st.lists(st.sampled_from([*SECRETS.values(), " ", "key=", "token: ", "Bearer ", "ß", "İ", "sk-", "://a:b@", "\n"]))
)
def test_masking_at_marks_is_masking_everywhere(parts: list[str]) -> None:
    text = "".join(parts)
    plain = text
    for rule in redacting._RULES:
        plain = rule.pattern.sub(rule.replacement, plain)
    assert redact(text) == plain


def test_a_word_is_no_secret() -> None:
    assert Redactor(["", "test"])("this is a test") == "this is a test"


def test_a_redactor_does_not_show_what_it_hides() -> None:
    assert "hunter2-hunter2" not in repr(Redactor(["hunter2-hunter2"]))


def test_the_head_of_a_text_holds_no_half_of_a_secret() -> None:
    secret = "0123456789-abcdefghij"
    redactor = Redactor([secret])

    for cut in range(1, 60):
        head = redactor.head(f"the key is {secret} as configured" + "." * 2000, cut)
        assert "0" not in head
        assert len(head) <= cut
    assert redactor.head(f"the key is {secret}", 100) == "the key is ***"
    for length in (100, 101, 500, 612, 613, 1_000_000):
        assert redactor.head("x" * length, 100) == "x" * 100


@given(st.text(max_size=200))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact(text)

    assert redact(once) == once


@pytest.mark.parametrize(
    "piece",
    [
        "eyJ",
        "sk-",
        "a",
        "A",
        "bearer ",
        "bearer\t",
        "://",
        "://a:",
        "key=",
        "api_key",
        "x_key_",
        "-----BEGIN PRIVATE KEY-----",
        "password: '",
        "authorization ",
        "AKIA",
        "pa-",
        "https://u:p",
        "token:",
        " ",
        "basic ",
        "eyJaaaaaaaa.",
    ],
)
def test_no_text_takes_more_than_linear_time(piece: str) -> None:
    def seconds(size: int) -> float:
        text = "authorization basic bearer key= token :// password eyj sk- " + piece * (size // len(piece))
        began = time.process_time()
        redact(text)
        return time.process_time() - began

    # A quadratic pattern takes minutes here; this takes tens of milliseconds.
    assert seconds(400_000) < 3.0

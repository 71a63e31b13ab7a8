"""Where the page is, and how it is spoken to. Loads nothing of what makes the page."""

from __future__ import annotations

import ssl


def url_of(host: str, port: int, *, secure: bool) -> str:
    """Where the page is."""
    return f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}/"


def tls_context(cert_file: str, key_file: str, client_ca_file: str | None) -> ssl.SSLContext:
    """As the gateway's own port: `client_ca_file` makes client certificates required. Raises OSError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca_file)
    context.load_cert_chain(cert_file, key_file)
    if client_ca_file:
        context.verify_mode = ssl.CERT_REQUIRED
    return context

"""A page to look at the records of calls: read-only, behind the callers' keys, in a process of its own."""

from trunkline_server.page.server import Page, tls_context, url_of

__all__ = ["Page", "tls_context", "url_of"]

"""Text that tries to leave the element or attribute in which a page shows it, and to steer a terminal."""

HOSTILE = "</script></pre><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u202e\x1b[31m\x00\ud800 {{ 7919 * 7919 }}"


def check_harmless(page: str) -> None:
    """A page, or an element of one, holds hostile text as text alone."""
    for part in ("<script", "<img", "onerror=alert(1)>", "\u202e", "\x1b", "\x00", "\ud800", "62710561"):
        assert part not in page
    assert "&lt;/script&gt;&lt;/pre&gt;" in page

"""Lengths that are read. Longer text is refused unread, so that a hostile completion costs no time."""

MAX_COMPLETION_CHARS = 1_000_000
"""Longest completion: about 250k tokens, above any generation limit in use."""

MAX_CODE_CHARS = 24_576
"""Longest program. The longest reference solutions of contest sets are below 10,000 characters."""

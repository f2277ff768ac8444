"""One adapter per form of published problems: a row in, one `Problem` out; see `preference.problems`."""

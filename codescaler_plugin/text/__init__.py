"""A host's prompt or completion -> plain text: content parts, chat templates, reasoning."""

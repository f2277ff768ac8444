"""A host's prompt or completion -> plain text: content parts and chat templates."""

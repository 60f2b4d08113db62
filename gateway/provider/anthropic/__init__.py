"""How Anthropic's API speaks: messages, batches of them, and what is kept there."""

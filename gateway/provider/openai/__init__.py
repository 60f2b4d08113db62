"""OpenAI's wire format, as OpenAI itself, Azure and compatible servers speak it."""

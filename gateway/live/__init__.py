"""Sessions over WebSocket: both sides talk, and each answer gets its own receipt."""

"""How much may be used: limits, prices, and what a request may come to before it is asked."""

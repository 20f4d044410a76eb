"""Two contestants compared on their common prompts."""

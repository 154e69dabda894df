"""What the AI is told, and what was said."""

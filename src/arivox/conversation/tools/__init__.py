"""What the AI can do besides talking."""

"""What was said in which call, kept beyond it."""

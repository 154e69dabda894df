"""The flow of a conversation as a diagram. Pure."""

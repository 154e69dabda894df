"""Pure functions and small stateful objects on samples."""

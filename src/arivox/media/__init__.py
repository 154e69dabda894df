"""The caller's audio: links to Asterisk, the playout of the agent's voice, the pacer."""

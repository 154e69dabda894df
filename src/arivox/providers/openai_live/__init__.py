"""OpenAI Live: wire protocol, the agent's voice, the turns (all pure) and session (shell)."""

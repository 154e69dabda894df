"""OpenAI Realtime: wire protocol (pure) and session (shell)."""

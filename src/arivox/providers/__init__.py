"""Realtime speech AIs under one contract."""

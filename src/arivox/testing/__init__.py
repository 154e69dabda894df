"""A real Asterisk, a scripted SIP caller and signal tools: for our tests and yours."""

"""Our own servers that speak the providers' protocols, for demo, tests and benchmark."""

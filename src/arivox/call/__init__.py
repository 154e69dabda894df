"""The life of one call: its side in Asterisk, its exchange with the AI, its deadlines and its way out."""

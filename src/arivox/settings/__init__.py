"""What the operator chooses: the settings, their template, and where calls may be transferred to."""

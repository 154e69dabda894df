"""The AI's sessions of a call, one after another, where a lost one cannot be taken up."""

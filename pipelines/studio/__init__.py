"""`studio`: a web page on which a person edits layouts and redraws pictures."""

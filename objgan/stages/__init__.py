"""The four stages of training."""

"""Networks: they know sizes, not settings."""

"""Statistics of prepared data: a table on the terminal, and one page that needs only a browser."""

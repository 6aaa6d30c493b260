"""The process around a command: console, exit codes, Ray session, Prometheus metrics."""

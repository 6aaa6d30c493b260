"""The one error that means: the person who typed this can mend it. (`cluster` imports nothing of the other three.)"""


class InputError(ValueError):
    """Wrong input: one line that says what is wrong, where, and what to do. Exit code 2."""

"""The one error that means: the person who typed this can mend it."""


class InputError(ValueError):
    """Wrong input: one line that says what is wrong, where, and what to do.

    Command lines turn it into exit code 2, without a traceback. Everything else that is raised is a fault of
    ours or of the machine, and worth a retry (exit code 1).
    """

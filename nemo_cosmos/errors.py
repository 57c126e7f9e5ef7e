"""The one exception type for mistakes in a user's input."""


class InputError(ValueError):
    """A file, key or value given by the user is wrong.

    The message names what is at fault, what was expected and what to do. The command line prints it alone, without a
    traceback, and exits with status 2.
    """

"""What can go wrong for a user, said so that the user can put it right."""


class UserError(Exception):
    """Something a user asked for cannot be done.

    The message is one sentence or two, shown as it is: what was wrong (with the value), what is
    valid, and what to do. The command line exits with status 2, the page shows it, the API returns it.
    """

"""Each thing that a user can ask for, once, from recipe to result.

Uses everything below. A job is a generator of steps (``steps``): what must be loaded, what the model is asked. Whoever
runs it does the steps: ``local`` on this machine (Python and the command line), ``page`` for visitors.
"""

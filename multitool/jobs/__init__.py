"""Each thing that a user can ask for, once, from recipe to result.

Uses ``store`` and what lies below, and ``evidence``. A job is a generator of steps (``steps``): what must be loaded,
scanned and asked of the model, in its order. Whoever runs it does the steps: ``local`` on this machine, for Python and
the command line; ``page.service`` for visitors.

- ``tree``, ``token_list``, ``check``, ``suggest``, ``study``, ``continuation``, ``text``, ``find``,
  ``components``: the jobs
- ``atlas``: the job of many features, described together
- ``token_table``: a token list as a result
- ``progress``: how far work is that is counted, and how long it will still take
- ``features``: from a recipe to what it names, loaded, and to a vector; ``steering``: to what is done to the model
- ``candidates``, ``trials``: the settings that are tried, and how; ``judging``: what evidence is made of
"""

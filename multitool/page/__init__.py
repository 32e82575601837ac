"""The Space: the page, the Gradio API and MCP tools, and the operator's limits.

Uses everything below; gradio and spaces. Adds to the jobs where the work runs, the words while it runs, and limits.

- ``build``: the whole interface, which ``app.py`` launches
- ``service``: does the steps of jobs for visitors; ``zero_gpu``: the model's work where the GPU is
- ``endpoints``: the API and MCP tools; ``api``: what follows from an endpoint; ``gradio_workarounds``
- ``settings``, ``opening``: what an operator decides, what the page opens with
- the tabs and their controls: the other modules
"""

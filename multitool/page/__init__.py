"""The Space: the page, the Gradio API and MCP tools, and the operator's limits.

Uses everything below; gradio and spaces. Adds to the jobs where the work runs, the words while it runs, and limits.

- ``build``: the whole interface, which ``app.py`` launches
- ``service``: does the steps of jobs for visitors; ``zero_gpu``: the model's work where the GPU is
- ``endpoints``: the API and MCP tools; ``api``: what follows from an endpoint; ``gradio_workarounds``
- ``settings``, ``opening``: what an operator decides, what the page opens with
- ``tree_tab``, ``list_tab``, ``steer_tab``, ``text_tab``, ``prompts_tab``, ``suggest_tab``: the tabs. Their controls
  are named by the fields of recipes that they set (``vector_controls``, ``growth_controls``; both together:
  ``recipe_controls``; ``vector_upload``: a vector of one's own), and events by the names of what they take and give
  (``common.event``)
- ``result``: what a tab's result was made from; ``tree_display``, ``tree_updates``, ``tree_views``: what a tree is
  shown in, what that becomes for a tree, and in which words; ``growing``, ``turns``: what is told while trees grow
"""

"""The Space: page, Gradio API and MCP tools, and the operator's limits.

Uses ``jobs``, ``pictures`` and what lies below; gradio and spaces.
"""

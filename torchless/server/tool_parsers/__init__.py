"""How models write calls of tools: one file for each style, found by its name and chosen by the chat template.

A module has STYLE, a `tool_styles.ToolStyle`.
"""

"""A conversation with a model, shown line by line (`torchless.cli`) or on a screen (`torchless.tui`).

`chat.Chat` holds the conversation and does what is typed; `partners` is who answers (a loaded model, or a server);
`view` is who shows it. `commands/` has the lines that start with a slash.
"""

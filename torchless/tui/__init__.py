"""The chat on a whole screen, made with textual (extra ``chat``). `app.run_chat_screen` is the way in.

`app` has the screen, `screen_view` shows on it what a `torchless.chat.Chat` on another thread says, `transcript` has
the parts of the conversation, `prompt` the field where messages are typed, `completion` and `history` help typing.
"""

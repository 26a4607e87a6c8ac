"""The list of ways to go on above the field: commands as soon as a slash is typed, all else with Tab."""

from __future__ import annotations

from rich.text import Text
from textual import on
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from torchless.chat.chat import Chat
from torchless.tui.completion import Completion, common_prefix, complete
from torchless.tui.prompt import PromptField

__all__ = ["CompletionList"]


class CompletionList(OptionList, can_focus=False):
    """Shown while there is something to choose. The field keeps the keyboard, and hands the keys for this over.

    Args:
        field: what is completed.
        chat: whose commands, settings, templates and files are offered.
    """

    def __init__(self, field: PromptField, chat: Chat) -> None:
        super().__init__(id="completions")
        self._field = field
        self._chat = chat
        self._offered: list[Completion] = []
        self._listed_for: str | None = None  # the text for which Tab has opened the list

    def on_mount(self) -> None:
        """Nothing to choose yet."""
        self._offer([])

    def suggest(self) -> None:
        """The text in the field has changed: offers commands that begin so."""
        before = self._field.before_cursor
        if before == self._listed_for:  # the change that listing them has made
            return
        is_command = before.startswith("/") and not any(character.isspace() for character in before)
        self._offer(complete(before, self._chat) if is_command else [])

    def complete(self) -> None:
        """Tab: goes on as far as there is one way, then offers the ways."""
        field = self._field
        found = complete(field.before_cursor, self._chat)
        if len(found) > 1:
            prefix = common_prefix(found)
            if len(prefix) > found[0].num_replaced:
                field.complete_with(prefix, found[0].num_replaced)
                found = complete(field.before_cursor, self._chat)
            self._offer(found)
            self._listed_for = field.before_cursor
        elif found:
            field.complete_with(found[0].text, found[0].num_replaced)

    def press(self, key: str) -> None:
        """A key while the list is shown: up, down, enter or escape."""
        if key == "up":
            self.action_cursor_up()
        elif key == "down":
            self.action_cursor_down()
        else:
            chosen = self.highlighted
            offered = self._offered
            self._offer([])
            if key == "enter" and chosen is not None:
                self._take(offered[chosen])

    @on(OptionList.OptionSelected)
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        chosen = self._offered[event.option_index]
        self._offer([])
        self._take(chosen)

    def _take(self, chosen: Completion) -> None:
        field = self._field
        if chosen.num_replaced and field.before_cursor.endswith(chosen.text.rstrip()):
            field.send()  # it was typed as a whole already
        else:
            field.complete_with(chosen.text, chosen.num_replaced)

    def _offer(self, completions: list[Completion]) -> None:
        self._offered, self._listed_for = completions, None
        self.clear_options()
        self.add_options([Option(_shown(item)) for item in completions])
        self.display = self._field.is_choosing = bool(completions)
        if completions:
            self.highlighted = 0


def _shown(completion: Completion) -> Text:
    return Text.assemble(completion.text.ljust(14), "  ", (completion.help, "dim"))

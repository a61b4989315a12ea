"""The explorer in gradio: what is shown, and which click does what. All else is in `state`, `marks` and `pages`."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr

from ..config import BALANCES
from ..errors import ConfigError, SageError
from ..selection.rows import ROW_VIEWS
from ..selection.selection import Selection
from .marks import actions_for, write_marks
from .pages import card_html, groups_html, link_html, marks_html, message_html, place_html, style, summary_html
from .server import Offers
from .state import VIEWS, Explored, Settings, command_of, message_of, page_of, settings_of, strategies_of

# Rows of a page.
PAGE_SIZE = 12
# Fonts of the system: none is asked for elsewhere.
_THEME = gr.themes.Default(
    primary_hue="orange",
    neutral_hue="stone",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)
# How an app of `make_app` is started, besides its address.
LAUNCH: dict[str, Any] = {
    "theme": _THEME,
    "css": style(),
    "share": False,
    "footer_links": [],
    "ssr_mode": False,
    "enable_monitoring": False,
    "mcp_server": False,
}
# One thing at a time: a choice is made in many threads already, and reads files.
_TURN = "selection"
# Components that tell of a choice, and those of a page of rows.
_TOLD, _ON_PAGE = 4, 7 + 3 * PAGE_SIZE
_NO_MESSAGE = gr.update(value="", visible=False)
_GATES = ["auto", "none", "0.1", "0.2", "0.3"]


def make_app(selection: Selection, offers: Offers) -> gr.Blocks:
    """The explorer of a selection, not started yet."""
    return _Explorer(selection, offers).app


def _html(value: str, **settings: Any) -> gr.HTML:
    """Ready HTML, whose text is shown as it is: `${}` and braces in it would else be taken for a template."""
    return gr.HTML(value, apply_default_css=False, **settings)


class _Explorer:
    """Components, and the functions that they call.

    Args:
        selection: The selection that is opened.
        offers: What can be done besides looking.
    """

    def __init__(self, selection: Selection, offers: Offers) -> None:
        self.start, self.offers = Explored.of(selection), offers
        self.settings = settings_of(selection)
        self.classes = list(selection.label_names or [])
        self.has_groups = len(selection.group_names) > 1
        share = selection.config.fraction or len(selection.indices) / max(1, len(selection.scores))
        self.percent = round(100.0 * share, 3)
        self.files = tempfile.TemporaryDirectory(prefix="sage_hf-explore-")
        title = f"{len(selection.scores):,} rows"
        if name := selection.stats.source.get("id") or selection.stats.source.get("name"):
            title += f" of {name}"
        with gr.Blocks(
            title=f"sage-hf: {title}", analytics_enabled=False, fill_width=True, delete_cache=(86400, 86400)
        ) as self.app:
            self.state: Any = gr.State(None)
            self.number: Any = gr.State(0)
            self.shown: Any = gr.State([])
            with gr.Row():
                with gr.Column(scale=1, min_width=280):
                    self._make_settings(selection)
                with gr.Column(scale=3, min_width=320), gr.Tabs():
                    with gr.Tab("Groups"):
                        self.groups = _html(groups_html(self.start))
                    with gr.Tab("Rows"):
                        self._make_rows()
                    if self.classes:
                        with gr.Tab("Marked labels"):
                            self._make_marks()
                    with gr.Tab("Save and share" if offers.writes else "Use this choice"):
                        self._make_outputs()
            self._connect()

    # ------------------------------------------------------------------- parts
    def _make_settings(self, selection: Selection) -> None:
        step = 0.1 if self.percent >= 1 else 0.001
        strategies = strategies_of(selection)
        gates = _GATES if self.settings.gate in _GATES else [self.settings.gate, *_GATES]
        self.summary = _html(summary_html(self.start))
        self.message = _html("", visible=False)
        self.fraction: Any = gr.Slider(
            0, 100, self.percent, step=step, label="Rows to keep, %", elem_id="sage-fraction"
        )
        # What a share cannot be is told by the library, as every other mistake, and not by a traceback of gradio's.
        self.fraction.preprocess = lambda payload: payload
        self.strategy = gr.Dropdown(
            list(strategies),
            value=self.settings.strategy,
            label="Strategy",
            info=strategies[self.settings.strategy],
            elem_id="sage-strategy",
        )
        self.balance = gr.Dropdown(
            list(BALANCES), value=self.settings.balance, label="Balance between groups", elem_id="sage-balance"
        )
        self.gate = gr.Dropdown(
            gates,
            value=self.settings.gate,
            allow_custom_value=True,
            label="Gate",
            info="Rows taken out before the choice: auto (likely wrong, near-duplicates), a share of each, or none.",
            elem_id="sage-gate",
        )
        self.reset = gr.Button("Back to the selection that was opened", size="sm")
        self.lines = strategies

    def _make_rows(self) -> None:
        names = [
            ("all groups", -1),
            *((name or "(empty)", code) for code, name in enumerate(self.start.original.group_names)),
        ]
        with gr.Row():
            views = [(f"{name}: {ROW_VIEWS[name]}" if name in ROW_VIEWS else name, name) for name in VIEWS]
            self.view = gr.Dropdown(views, value="kept", label="Rows", min_width=240, elem_id="sage-view")
            self.group = gr.Dropdown(
                names, value=-1, label="Group", min_width=240, visible=self.has_groups, elem_id="sage-group"
            )
        self.pagers: list[tuple[Any, Any]] = []
        with gr.Row(elem_classes="sage-pager"):
            self.place = _html("")
            self._make_pager("top")
        self.slots, self.cards, self.marks = [], [], []
        with gr.Row(elem_classes="sage-cards"):
            for _ in range(PAGE_SIZE):
                with gr.Column(elem_classes="sage-slot", visible=False) as slot:
                    self.cards.append(_html(""))
                    self.marks.append(
                        gr.Dropdown([("No mark", "")], value="", label="Mark", visible=False, container=False)
                    )
                self.slots.append(slot)
        with gr.Row(elem_classes="sage-pager"):
            self._make_pager("bottom")

    def _make_pager(self, place: str) -> None:
        settings: dict[str, Any] = {"size": "sm", "min_width": 90, "scale": 0, "interactive": False}
        before = gr.Button("Previous", elem_id=f"sage-previous-{place}", **settings)
        self.pagers.append((before, gr.Button("Next", elem_id=f"sage-next-{place}", **settings)))

    def _make_marks(self) -> None:
        self.marked = _html(marks_html(self.start))
        with gr.Row():
            self.download = gr.DownloadButton("Download label_issues.csv", interactive=False, elem_id="sage-download")
            self.clear = gr.Button("Clear all marks")
        _html(message_html("Apply the marks with: sage-hf apply DATASET label_issues.csv --output NEW_FOLDER"))

    def _make_outputs(self) -> None:
        language = "shell" if self.offers.folder is not None else "python"
        self.command = gr.Code(
            command_of(self.start, self.offers.folder),
            language=language,
            label="Command that makes this choice again",
            interactive=False,
            wrap_lines=True,
            lines=1,
            max_lines=4,
            elem_id="sage-command",
        )
        if not self.offers.writes:
            return
        with gr.Group():
            self.folder = gr.Textbox(label="Folder on this machine", placeholder="imdb-5pct", elem_id="sage-folder")
            self.overwrite = gr.Checkbox(label="Replace an existing selection")
            self.save = gr.Button("Save", variant="primary", elem_id="sage-save")
        self.saved = _html("")
        with gr.Group():
            self.repository = gr.Textbox(
                label="Dataset repository on the Hub",
                placeholder="owner/name",
                info="Pushed with the login of this machine (hf auth login).",
                elem_id="sage-repository",
            )
            self.private = gr.Checkbox(True, label="Private, if the repository is new")
            self.others = gr.Checkbox(True, label="Push the source's other splits, too, if they are on the Hub")
            self.replace = gr.Checkbox(label="Replace existing data")
            self.push = gr.Button("Push to the Hub", elem_id="sage-push")
        self.pushed = _html("")

    # ------------------------------------------------------------------ clicks
    def _connect(self) -> None:
        turn: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": _TURN}
        turns = [button for pager in self.pagers for button in pager]
        page = [self.place, *turns, self.number, self.shown, *self.slots, *self.cards, *self.marks]
        looks = [self.state, self.view, self.group]
        choices = [self.fraction, self.strategy, self.balance, self.gate]
        chosen = [self.state, self.message, self.summary, self.groups, self.command, self.strategy, *page]
        gr.on(
            [each.input for each in choices],
            self._choose,
            [*looks, *choices],
            chosen,
            trigger_mode="always_last",
            show_progress="minimal",
            show_progress_on=self.summary,
            api_name="choose",
            **turn,
        )
        self.reset.click(
            self._reset, looks, [*choices, *chosen[:5], *page], show_progress="hidden", api_name="reset", **turn
        )
        looked = {"outputs": page, "show_progress": "hidden", **turn}
        gr.on([self.view.input, self.group.input], self._look, looks, api_name="look", **looked)
        for end, pager in zip(("top", "bottom"), self.pagers, strict=True):
            for button, step, name in zip(pager, (-1, 1), ("previous", "next"), strict=True):
                turned = functools.partial(self._turn, step)
                button.click(
                    turned,
                    [*looks, self.number],
                    api_name=f"{name}_{end}",
                    scroll_to_output=end == "bottom",
                    **looked,
                )
        self.app.load(self._look, looks, api_name="first", **looked)
        if self.classes:
            told = [self.state, self.marked, self.download]
            for slot, mark in enumerate(self.marks):
                mark.input(
                    functools.partial(self._mark, slot),
                    [self.state, self.shown, mark],
                    told,
                    show_progress="hidden",
                    trigger_mode="multiple",
                    api_name=f"mark_{slot}",
                    **turn,
                )
            self.clear.click(
                self._clear, [*looks, self.number], [*told, *page], show_progress="hidden", api_name="clear", **turn
            )
        if self.offers.writes:
            place = [self.state, self.folder, self.overwrite]
            self.save.click(self._save, place, self.saved, show_progress_on=self.saved, api_name="save", **turn)
            place = [self.state, self.repository, self.private, self.others, self.replace]
            self.push.click(self._push, place, self.pushed, show_progress_on=self.pushed, api_name="push", **turn)

    def _choose(
        self, state: Explored | None, view: str, group: int, percent: float, strategy: str, balance: str, gate: str
    ) -> list[Any]:
        state = state or self.start
        fraction = None if percent is None or abs(percent - self.percent) < 0.001 else percent / 100
        try:
            state = state.choose(Settings(fraction, strategy, balance, (gate or "none").strip()))
        except SageError as error:
            told = message_html(f"{message_of(error)} The previous choice is still shown.", is_error=True)
            return [gr.skip(), gr.update(value=told, visible=True), *[gr.skip()] * (_TOLD + _ON_PAGE)]
        info = gr.update(info=self.lines.get(strategy, ""))
        return [state, _NO_MESSAGE, *self._told(state), info, *self._page(state, view, group, 0)]

    def _reset(self, state: Explored | None, view: str, group: int) -> list[Any]:
        state = (state or self.start).choose(self.settings)
        strategy = gr.update(value=self.settings.strategy, info=self.lines[self.settings.strategy])
        values = [self.percent, strategy, self.settings.balance, self.settings.gate]
        return [*values, state, _NO_MESSAGE, *self._told(state), *self._page(state, view, group, 0)]

    def _told(self, state: Explored) -> list[Any]:
        return [summary_html(state), groups_html(state), command_of(state, self.offers.folder)]

    def _look(self, state: Explored | None, view: str, group: int) -> list[Any]:
        return self._page(state or self.start, view, group, 0)

    def _turn(self, step: int, state: Explored | None, view: str, group: int, number: int) -> list[Any]:
        return self._page(state or self.start, view, group, number + step)

    def _page(self, state: Explored, view: str, group: int, number: int) -> list[Any]:
        page = page_of(state, view, group, number, PAGE_SIZE)
        empty = PAGE_SIZE - len(page.rows)
        slots = [gr.update(visible=place < len(page.rows)) for place in range(PAGE_SIZE)]
        cards = [*(card_html(row, self.has_groups) for row in page.rows), *[""] * empty]
        marks = []
        for row in page.rows:
            actions = actions_for(row, self.classes) if self.classes else []
            mark = state.marks.get(row.row)
            marks.append(
                gr.update(
                    choices=actions or [("No mark", "")],
                    value=mark.action if mark is not None and actions else "",
                    label=f"Mark of row {row.row:,}",
                    visible=bool(actions),
                )
            )
        marks += [gr.update(visible=False)] * empty
        turns = [gr.update(interactive=page.number > 0), gr.update(interactive=page.number + 1 < page.pages)]
        rows = [row.row for row in page.rows]
        return [place_html(page), *turns, *turns, page.number, rows, *slots, *cards, *marks]

    def _mark(self, slot: int, state: Explored | None, shown: list[int], action: str) -> list[Any]:
        state = state or self.start
        if slot < len(shown):
            state = state.mark(shown[slot], action or "")
        return [state, *self._listed(state)]

    def _clear(self, state: Explored | None, view: str, group: int, number: int) -> list[Any]:
        state = (state or self.start).unmarked()
        return [state, *self._listed(state), *self._page(state, view, group, number)]

    def _listed(self, state: Explored) -> list[Any]:
        """The marks as a table, and the button that gives their file."""
        if not state.marks:
            return [marks_html(state), gr.update(value=None, interactive=False)]
        folder = Path(self.files.name) / uuid4().hex
        folder.mkdir()
        file = write_marks(state.marks.values(), folder / "label_issues.csv")
        return [marks_html(state), gr.update(value=str(file), interactive=True)]

    def _save(self, state: Explored | None, folder: str, overwrite: bool) -> str:
        try:
            if not folder.strip():
                raise ConfigError("No folder is named", where="folder", fix="Name a new or empty one.")
            place = Path(folder.strip()).expanduser()
            (state or self.start).chosen.save_to_disk(place, overwrite=overwrite)
            if self.offers.on_saved is not None:
                self.offers.on_saved(place)
        except SageError as error:
            return message_html(message_of(error), is_error=True)
        return message_html(f"Saved to {place}.")

    def _push(self, state: Explored | None, repository: str, private: bool, others: bool, overwrite: bool) -> str:
        try:
            if not repository.strip():
                raise ConfigError("No repository is named", where="repository", fix="Name it as owner/name.")
            commit = (state or self.start).chosen.push_to_hub(
                repository.strip(), private=private, overwrite=overwrite, other_splits=None if others else {}
            )
        except SageError as error:
            return message_html(message_of(error), is_error=True)
        return message_html("Pushed.") if commit is None else link_html("Pushed:", str(commit.repo_url))

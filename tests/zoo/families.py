"""All families, by name, and the settings that they are tried in."""

import torch

from . import audio, mixtures, multimodal, scenes, series, text, vision
from .family import Family, Setting

ROOMS = (text, mixtures, vision, scenes, audio, series, multimodal)
FAMILIES: dict[str, Family] = {family.name: family for room in ROOMS for family in room.families()}
PLAIN = Setting()
SETTINGS = (
    PLAIN,
    Setting(attention="eager"),
    Setting(side="left"),
    Setting(side="left", positions=True),
    Setting(side="left", attention="eager"),
    Setting(dtype=torch.bfloat16),
)
TARGETS = ("auto", "all")

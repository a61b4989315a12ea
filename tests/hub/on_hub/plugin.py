"""Loaded before any conftest: starts the server, and tells the Hub's library its address before it is imported."""

import os
import sys

from ..fake import FakeHub, serve

assert "huggingface_hub" not in sys.modules
HUB = FakeHub()
serve(HUB)
os.environ["HF_ENDPOINT"] = HUB.url

from huggingface_hub import repocard  # noqa: E402

_get_session = repocard.get_session


class _Session:
    """Validates cards at our address: versions up to 2.0 ask the real Hub, wherever the endpoint is."""

    def post(self, url, **given):
        return _get_session().post(url.replace("https://huggingface.co", HUB.url), **given)


repocard.get_session = _Session

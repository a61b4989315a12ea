"""How the explorer is started, and what it refuses."""

import pytest

from sage_hf.errors import ConfigError
from sage_hf.explorer import launch


def test_without_gradio_the_line_that_installs_it_is_told(monkeypatch, selection):
    monkeypatch.setattr("sage_hf.explorer.server.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "sage-hf\[explore\]"'):
        launch(selection)


def test_nothing_is_shared_and_a_taken_port_is_told(selection):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'sage-hf[explore]'")
    from sage_hf.explorer.app import LAUNCH

    assert LAUNCH["share"] is False and LAUNCH["footer_links"] == []
    said = []
    app = launch(selection, say=said.append, block=False)
    try:
        assert app.server_name == "127.0.0.1" and not app.share_url and not app.analytics_enabled
        assert f"http://127.0.0.1:{app.server_port}/" in said[0]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1, port {app.server_port}"):
            launch(selection, port=app.server_port, block=False)
    finally:
        app.close()

"""A bug report names the version that runs, and not that of metadata that an old installation left."""

import sage_hf
from sage_hf.utils import environment


def test_the_version_is_that_of_the_code(monkeypatch):
    monkeypatch.setattr(environment, "version", lambda package: "0.0.1")
    environment._version.cache_clear()
    try:
        assert environment.describe_environment()["sage_hf"] == sage_hf.__version__
        versions = environment.library_versions()
    finally:
        environment._version.cache_clear()
    assert versions["sage_hf"] == sage_hf.__version__ and versions["torch"] == "0.0.1"

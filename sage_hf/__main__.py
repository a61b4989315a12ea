"""`python -m sage_hf`, for `accelerate launch -m sage_hf`."""

from .cli.main import main

main()

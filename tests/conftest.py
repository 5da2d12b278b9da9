"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# Examples may be slow on a busy machine; that is no failure.
settings.register_profile("offramp", deadline=None, print_blob=True)
settings.load_profile("offramp")

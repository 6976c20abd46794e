"""fraudsdk."""

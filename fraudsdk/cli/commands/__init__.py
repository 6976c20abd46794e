"""One module per command: `register` adds its parser, its ``run`` does the work."""

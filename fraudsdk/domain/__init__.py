"""The words: a `Transaction` goes in, a `Decision` comes out."""

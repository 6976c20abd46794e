"""What is remembered about each entity: exact rings, bounded tiles, distinct keys, decayed totals, places and hours."""

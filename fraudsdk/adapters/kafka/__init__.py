"""A stream of transactions, scored by the consumer group that owns it: nothing lost, nothing counted twice."""

"""From a publish to the store: checking, encoding, and keeping messages while the store is gone."""

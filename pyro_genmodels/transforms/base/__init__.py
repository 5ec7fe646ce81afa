"""The contract of a flow: both directions with their log-determinants, chains, contexts."""

"""Attribution by propagation: a value is sent back through the network, operation by operation."""

"""What answers show of servers that are no nodes, which tell little by themselves."""

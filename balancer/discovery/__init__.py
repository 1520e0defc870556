"""Discovery: find nodes, and follow what each says about itself."""

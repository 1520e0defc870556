"""Commands about models: what there is, where it runs, and how it gets there."""

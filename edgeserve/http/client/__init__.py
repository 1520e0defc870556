"""HTTP client: pooled connections to upstreams."""

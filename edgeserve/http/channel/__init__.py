"""Fleet channel: TLS 1.3, then the proof of the fleet token, then HTTP."""

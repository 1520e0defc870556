"""Security: secrets, certificates, the proof that both sides hold the token."""

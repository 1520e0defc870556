"""llama.cpp and vLLM as Ray Serve deployments with OpenAI's API."""

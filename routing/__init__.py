"""An LLM router for Azure Functions: one OpenAI-compatible endpoint in front of many providers."""

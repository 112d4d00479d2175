"""The SDK inside other people's engines, and those engines themselves."""

"""The SDK inside other people's engines; each module needs an extra of its own."""

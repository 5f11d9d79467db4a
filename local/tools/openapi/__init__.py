"""The OpenAPI document: what is said about refusals and routes, and what is read from the code."""

"""`offramp bench serve`: requests for any server with OpenAI's API, and what came of them."""

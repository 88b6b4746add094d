"""The conformance matrix: what each common client can do through the router with each kind of provider."""

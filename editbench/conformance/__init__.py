"""The conformance suite for editors: what every one of them owes, checked on worlds in closed form."""

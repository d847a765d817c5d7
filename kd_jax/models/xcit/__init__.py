"""XCiT, attention between channels."""

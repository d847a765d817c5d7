"""Methods of today's toolkits and of distilled foundation models."""

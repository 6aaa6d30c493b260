"""`verify`: reads all prepared data again and reports every fault."""

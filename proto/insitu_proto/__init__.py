"""What travels between the parties of a federation: messages, their wire form, errors across RPC."""

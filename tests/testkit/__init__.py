"""What tests share: in-memory worlds behind the production interfaces, and real databases started once a session."""

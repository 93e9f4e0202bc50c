"""Generated from ``insitu.proto`` by ``make proto``; imported only by ``wire``, ``status``, servicers and dialers."""

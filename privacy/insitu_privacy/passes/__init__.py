"""SQL text to privacy plan, one pass a file, in the order of ``planner.plan_query``."""

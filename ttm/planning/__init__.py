"""The grammar behind the rule planner: words, forms of verbs, noun phrases, clauses."""

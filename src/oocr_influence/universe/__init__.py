"""What is true: entities, typed fields, facts, from YAML or invented from a seed."""

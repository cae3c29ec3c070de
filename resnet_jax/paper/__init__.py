"""The paper's tables and figures: what they report, what they need to be trained, and how they are drawn."""

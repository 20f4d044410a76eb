"""Win rates, or mean marks, from anyone's file of judgments, and from answers judged now."""

"""Quality of the policies in the clear: tasks, metrics, studies, and the frontier against private cost."""

"""`mpcache-bench eval`: what each cache policy does to the model's answers, and what it costs in private."""

"""What is fetched from elsewhere: released networks and tokenizers from the hub, example videos."""

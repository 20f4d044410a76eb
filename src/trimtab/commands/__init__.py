"""What a person asks for at the prompt, beyond a single stage: run, plan, audit, doctor, winrate, chat, export."""

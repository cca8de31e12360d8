"""What tests share: servers with scripted answers, commands and processes, fabricated runs. No test lives here."""

"""The commands that make whole experiments: many runs, one verdict. Commands about single runs are beside this room."""

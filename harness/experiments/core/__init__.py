"""What every experiment stands on: its folder, its runs, what they share, what they take, what is written of them.

Nothing here knows what the runs are compared or judged by.
"""

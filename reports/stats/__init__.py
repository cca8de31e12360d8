"""Statistics over arrays: order statistics, intervals, paired tests, designs. It knows no run and no file."""

"""What a run leaves for people: figures, a page for one run and a page that compares several."""

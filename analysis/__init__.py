"""Result tables in; figures and tables out. Nothing here trains, and nothing here imports torch or ray."""

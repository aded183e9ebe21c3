"""Compare LSTM and Transformer, on notes and on tokens: what ``pipelines/compare.py`` measures."""

"""The joint solution without each row, or each cluster, in turn, without refitting."""

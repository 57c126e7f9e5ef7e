"""The demo: clips, the public commands one after the other, a report; every size is small."""
